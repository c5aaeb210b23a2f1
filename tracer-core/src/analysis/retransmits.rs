//! The kernel's retransmission schedules for SYNs and SYN-ACKs.

use crate::event::Nanos;

/// No schedule is computed for more retransmissions; practical values of `tcp_syn_retries` are lower.
const MAX_RETRANSMITS: u8 = 12;
/// SYN retransmissions at intervals of 1 s before the interval doubles: the default of
/// `net.ipv4.tcp_syn_linear_timeouts`, 6.5 and newer.
const LINEAR_RETRANSMITS: u8 = 4;

/// The intervals between the retransmissions of one handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetransmitSchedule {
    /// The number of retransmissions.
    pub retransmits: u8,
    /// The number of intervals of 1 s before the interval doubles; 0 for pure doubling.
    linear: u8,
}

impl RetransmitSchedule {
    /// Returns the interval before retransmission `index` (from 0), seconds.
    fn interval_secs(self, index: u8) -> u64 {
        1 << index.saturating_sub(self.linear)
    }

    /// Iterates over the intervals; each is a whole number of seconds.
    pub fn intervals(self) -> impl Iterator<Item = Nanos> {
        (0..self.retransmits).map(move |index| Nanos::from_secs(self.interval_secs(index)))
    }

    /// Returns the time from the first segment to the last retransmission.
    pub(super) fn wait(self) -> Nanos {
        Nanos::from_secs((0..self.retransmits).map(|index| self.interval_secs(index)).sum())
    }

    /// Returns whether a handshake of this duration fits the schedule: at least all intervals, and less than
    /// the time of the next retransmission.
    fn fits(self, duration: Nanos) -> bool {
        let next = Self { retransmits: self.retransmits + 1, ..self };
        // Timers never fire early; long ones fire up to an eighth late.
        duration >= self.wait() && duration.0 < next.wait().0 + next.wait().0 / 8
    }
}

/// Returns the schedule of a client's handshake with this number of SYN retransmissions and this duration.
///
/// The kernel retransmits SYNs after 1, 3, 7, 15 … s, from 6.5 on (`tcp_syn_linear_timeouts` of 4) after 1,
/// 2, 3, 4, 5, 7, 11 … s. The duration identifies the schedule, because equal numbers of retransmissions take
/// different times. Returns none if neither schedule fits, for example if an application or a route sets its
/// own timeout.
pub(super) fn client_schedule(retransmits: u8, duration: Nanos) -> Option<RetransmitSchedule> {
    if retransmits == 0 || retransmits > MAX_RETRANSMITS {
        return None;
    }
    // The longer schedule first: a duration below it can only fit the other one.
    [0, LINEAR_RETRANSMITS]
        .map(|linear| RetransmitSchedule { retransmits, linear })
        .into_iter()
        .find(|schedule| schedule.fits(duration))
}

/// Returns the schedule of a server's handshake: the kernel retransmits SYN-ACKs 1, 3, 7, 15 … s after the first.
///
/// The schedule may have fewer retransmissions than the kernel counted, because the kernel also counts the answers to
/// retransmitted SYNs.
pub(super) fn server_schedule(retransmits: u8, duration: Nanos) -> Option<RetransmitSchedule> {
    (1..=retransmits.min(MAX_RETRANSMITS))
        .rev()
        .map(|retransmits| RetransmitSchedule { retransmits, linear: 0 })
        .find(|schedule| schedule.wait() <= duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intervals(schedule: Option<RetransmitSchedule>) -> Vec<u64> {
        schedule.map(|schedule| schedule.intervals().map(Nanos::as_secs).collect()).unwrap_or_default()
    }

    #[test]
    fn the_duration_identifies_the_client_schedule() {
        let at = |retransmits, ms: u64| intervals(client_schedule(retransmits, Nanos::from_millis(ms)));
        assert_eq!(at(1, 1_020), [1]);
        assert_eq!(at(2, 3_020), [1, 2]);
        assert_eq!(at(2, 2_090), [1, 1]);
        assert_eq!(at(3, 7_100), [1, 2, 4]);
        assert_eq!(at(3, 3_100), [1, 1, 1]);
        assert_eq!(at(6, 7_010), [1, 1, 1, 1, 1, 2]);
        assert_eq!(at(7, 11_010), [1, 1, 1, 1, 1, 2, 4]);
        assert_eq!(at(0, 20), [0_u64; 0]);
    }

    #[test]
    fn other_durations_have_no_client_schedule() {
        assert_eq!(client_schedule(1, Nanos::from_millis(900)), None);
        assert_eq!(client_schedule(2, Nanos::from_millis(1_200)), None);
        assert_eq!(client_schedule(3, Nanos::from_secs(30)), None);
        assert_eq!(client_schedule(200, Nanos::from_secs(30)), None);
    }

    #[test]
    fn a_server_schedule_is_no_longer_than_the_handshake() {
        assert_eq!(intervals(server_schedule(1, Nanos::from_millis(1_030))), [1]);
        assert_eq!(intervals(server_schedule(2, Nanos::from_millis(3_030))), [1, 2]);
        assert_eq!(
            intervals(server_schedule(2, Nanos::from_millis(1_030))),
            [1],
            "one retransmission was the answer to a retransmitted SYN"
        );
        assert_eq!(server_schedule(1, Nanos::from_millis(30)), None);
        assert_eq!(server_schedule(0, Nanos::from_millis(3_030)), None);
    }

    #[test]
    fn the_schedules_match_the_kernel() {
        let offsets = |linear| {
            (1..=10).map(move |retransmits| RetransmitSchedule { retransmits, linear }.wait().as_secs())
        };
        assert_eq!(offsets(0).take(6).collect::<Vec<_>>(), [1, 3, 7, 15, 31, 63]);
        assert_eq!(offsets(LINEAR_RETRANSMITS).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 7, 11, 19, 35, 67]);
    }
}
