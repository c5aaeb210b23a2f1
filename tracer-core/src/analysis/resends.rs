//! When SYNs and SYN-ACKs are sent again, and which of these waits a handshake has had.

const SECOND: u64 = 1_000_000_000;
/// More than `tcp_syn_retries` is set to anywhere; beyond it the waits of a schedule are not looked for.
const MAX_RESENDS: u8 = 12;
/// How many SYNs are sent again a second apart before the interval doubles: the default of
/// `net.ipv4.tcp_syn_linear_timeouts`, 6.5 and newer.
const LINEAR_RESENDS: u8 = 4;

/// The waits before the resends of one handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResendSchedule {
    /// How many resends there were.
    pub resends: u8,
    /// How many of the waits were a second long before they doubled; none where all doubled.
    linear: u8,
}

impl ResendSchedule {
    /// The wait before the `index`th resend (from 0), seconds.
    fn interval(self, index: u8) -> u64 {
        1 << index.saturating_sub(self.linear)
    }

    /// The waits, seconds.
    pub fn intervals(self) -> impl Iterator<Item = u64> {
        (0..self.resends).map(move |index| self.interval(index))
    }

    /// From the first to the last, nanoseconds.
    pub fn wait_ns(self) -> u64 {
        self.intervals().sum::<u64>() * SECOND
    }

    /// A handshake that was answered after this many resends took at least these waits, and no longer than up to
    /// the next one.
    fn fits(self, duration_ns: u64) -> bool {
        let next = Self { resends: self.resends + 1, ..self };
        // A timer is never early, and a long one up to an eighth late.
        duration_ns >= self.wait_ns() && duration_ns < next.wait_ns() + next.wait_ns() / 8
    }
}

/// The waits of a client that took so long and sent its SYN again so often; none when neither schedule of the
/// kernel fits, as when an application or a route has set its own time.
///
/// SYNs are sent again at 1, 3, 7, 15 … s, from 6.5 on (`tcp_syn_linear_timeouts` of 4) at 1, 2, 3, 4, 5, 7, 11 …
/// s. The duration tells which: with equally many resends the two lie apart.
pub fn client_schedule(resends: u8, duration_ns: u64) -> Option<ResendSchedule> {
    if resends == 0 || resends > MAX_RESENDS {
        return None;
    }
    // The longer one first: what is short of it can only be the other.
    [0, LINEAR_RESENDS]
        .map(|linear| ResendSchedule { resends, linear })
        .into_iter()
        .find(|schedule| schedule.fits(duration_ns))
}

/// The waits of a server whose SYN-ACK was sent again, 1, 3, 7, 15 … s after the first.
///
/// The count of resends may be larger: a SYN that comes again is answered again, and counted.
pub fn server_schedule(resends: u8, duration_ns: u64) -> Option<ResendSchedule> {
    (1..=resends.min(MAX_RESENDS))
        .rev()
        .map(|resends| ResendSchedule { resends, linear: 0 })
        .find(|schedule| schedule.wait_ns() <= duration_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(schedule: Option<ResendSchedule>) -> Vec<u64> {
        schedule.map(|schedule| schedule.intervals().collect()).unwrap_or_default()
    }

    #[test]
    fn the_two_schedules_of_clients() {
        let at = |resends, ms: u64| waits(client_schedule(resends, ms * 1_000_000));
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
    fn what_fits_neither_is_not_explained() {
        assert_eq!(client_schedule(1, 900_000_000), None);
        assert_eq!(client_schedule(2, 1_200_000_000), None);
        assert_eq!(client_schedule(3, 30 * SECOND), None);
        assert_eq!(client_schedule(200, 30 * SECOND), None);
    }

    #[test]
    fn a_server_s_schedule_is_no_longer_than_what_it_took() {
        assert_eq!(waits(server_schedule(1, 1_030_000_000)), [1]);
        assert_eq!(waits(server_schedule(2, 3_030_000_000)), [1, 2]);
        assert_eq!(
            waits(server_schedule(2, 1_030_000_000)),
            [1],
            "one was the answer to a SYN that came again"
        );
        assert_eq!(server_schedule(1, 30_000_000), None);
        assert_eq!(server_schedule(0, 3_030_000_000), None);
    }

    #[test]
    fn the_schedules_are_the_kernel_s() {
        let offsets =
            |linear| (1..=10).map(move |resends| ResendSchedule { resends, linear }.wait_ns() / SECOND);
        assert_eq!(offsets(0).take(6).collect::<Vec<_>>(), [1, 3, 7, 15, 31, 63]);
        assert_eq!(offsets(LINEAR_RESENDS).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 7, 11, 19, 35, 67]);
    }
}
