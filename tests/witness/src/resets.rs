//! Resets that this host sends: the event `tcp:tcp_send_reset`.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    net::IpAddr,
};

use crate::{
    instance::{Instance, unexpected},
    process::{current, first_process},
};

const EVENT: &str = "events/tcp/tcp_send_reset";
const NAME: &str = "tcp_send_reset";

/// Records resets from its start to its end; removes its tracefs instance on drop.
#[derive(Debug)]
pub struct ResetWitness {
    instance: Instance,
    address: IpAddr,
    /// Threads of process 1 when recording started.
    first_process: HashSet<u32>,
}

/// Resets that a witness recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WitnessedResets {
    /// Resets to or from the witness's address, by the kernel's reason in lower case. `unknown` before 6.10, whose event
    /// has no reason.
    pub by_reason: BTreeMap<String, u64>,
    /// The part of `by_reason` during which a thread of process 1 was current; see
    /// [`Witnessed`](crate::Witnessed::under_first_process).
    pub under_first_process: u64,
}

impl WitnessedResets {
    /// Returns the number of resets.
    pub fn count(&self) -> u64 {
        self.by_reason.values().sum()
    }
}

impl ResetWitness {
    /// Starts recording. `most` is the maximum number of resets on the whole host.
    ///
    /// # Errors
    ///
    /// Fails if tracefs cannot be mounted or lacks the event.
    pub fn start(address: IpAddr, most: u64) -> io::Result<Self> {
        let first_process = first_process();
        Ok(Self { instance: Instance::start(EVENT, most)?, address, first_process })
    }

    /// Stops recording and counts the resets.
    ///
    /// # Errors
    ///
    /// Fails if the trace buffer was too small, or its text cannot be read or parsed.
    pub fn end(self) -> io::Result<WitnessedResets> {
        let mut first_process = first_process();
        first_process.extend(&self.first_process);
        let mut witnessed = WitnessedResets::default();
        self.instance.read(|event| {
            if event.contains(" tcp_send_reset: ") && has_address(event, self.address) {
                let pid = current(event, NAME).ok_or_else(|| unexpected("no process in", event))?;
                witnessed.under_first_process += u64::from(first_process.contains(&pid));
                *witnessed.by_reason.entry(reason(event)).or_default() += 1;
            }
            Ok(())
        })?;
        Ok(witnessed)
    }
}

/// Returns whether one of the endpoints has the address: `src=127.0.0.1:80`, `src=[::1]:80`, and before 6.10
/// `saddr=127.0.0.1 `.
fn has_address(line: &str, address: IpAddr) -> bool {
    [format!("={address}:"), format!("=[{address}]:"), format!("={address} ")]
        .iter()
        .any(|it| line.contains(it))
}

/// Returns the reason, which ends the line: `reason=NO_SOCKET`.
fn reason(line: &str) -> String {
    line.rsplit_once(" reason=")
        .map_or_else(|| "unknown".to_owned(), |(_, reason)| reason.trim().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "  scan-42  [000] b.s3.  1.2: tcp_send_reset: skbaddr=00000000c1 skaddr=(nil) \
                        src=127.0.5.1:20000 dest=127.0.0.1:40000 state=UNKNOWN reason=NO_SOCKET\n";

    #[test]
    fn the_reason_and_the_addresses_are_found() {
        assert_eq!(reason(LINE), "no_socket");
        assert_eq!(
            reason("1.2: tcp_send_reset: sport=80 saddr=127.0.5.1 daddr=127.0.0.1 state=TCP_ESTABLISHED"),
            "unknown"
        );
        let has = |line: &str, address: &str| has_address(line, address.parse().unwrap());
        assert!(has(LINE, "127.0.5.1") && has(LINE, "127.0.0.1") && !has(LINE, "127.0.5.10"));
        assert!(has("sport=80 saddr=127.0.5.1 daddr=127.0.0.1", "127.0.5.1"));
        assert!(has("src=[::1]:80 dest=[::1]:81", "::1"));
        assert_eq!(current(LINE, NAME), Some(42));
    }
}
