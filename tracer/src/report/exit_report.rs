//! What `connections` and `transitions` say at their end: how connections ended, and who opened slowly.

use std::{cmp::Reverse, fmt};

use tracer_core::{
    event::Endpoint,
    lifecycle::{CloseReason, ClosedConnection, Role},
};

use crate::report::text::{EndpointText, duration};

/// How many of each are shown.
const SHOWN: usize = 3;

/// Counts of ends, and the slowest handshakes; the same size however many connections there are.
#[derive(Clone, Debug, Default)]
pub struct ExitReport {
    reasons: [u64; CloseReason::ALL.len()],
    slowest: arrayvec::ArrayVec<Slow, SHOWN>,
}

/// A handshake.
#[derive(Clone, Copy, Debug)]
struct Slow {
    duration_ns: u64,
    role: Role,
    remote: Endpoint,
    retransmits: Option<u8>,
}

impl ExitReport {
    /// Takes in a connection that ended.
    pub fn take(&mut self, closed: &ClosedConnection<'_>) {
        let place = CloseReason::ALL.iter().position(|reason| *reason == closed.close_cause.reason);
        if let Some(count) = place.and_then(|place| self.reasons.get_mut(place)) {
            *count += 1;
        }
        let connection = closed.connection;
        let completed = connection.handshake.filter(|_| !connection.never_established());
        let Some((handshake, duration_ns)) =
            completed.and_then(|handshake| Some((handshake, handshake.duration_ns?)))
        else {
            return;
        };
        let at = self.slowest.iter().position(|known| known.duration_ns < duration_ns);
        let at = match at {
            Some(at) => at,
            None if self.slowest.is_full() => return,
            None => self.slowest.len(),
        };
        if self.slowest.is_full() {
            self.slowest.pop();
        }
        let (role, remote) = (connection.role, connection.remote);
        self.slowest.insert(at, Slow { duration_ns, role, remote, retransmits: handshake.retransmits });
    }

    /// Its lines: none when nothing ended.
    pub fn lines(&self) -> Vec<String> {
        let mut reasons: Vec<(CloseReason, u64)> =
            CloseReason::ALL.into_iter().zip(self.reasons).filter(|(_, count)| *count != 0).collect();
        reasons.sort_by_key(|(_, count)| Reverse(*count));
        let mut lines = Vec::new();
        if !reasons.is_empty() {
            let others: u64 = reasons.iter().skip(SHOWN).map(|(_, count)| count).sum();
            let mut parts: Vec<String> = reasons
                .iter()
                .take(SHOWN)
                .map(|(reason, count)| format!("{count} {}", reason.name()))
                .collect();
            if others != 0 {
                parts.push(format!("{others} others"));
            }
            lines.push(format!("how connections ended: {}", parts.join(", ")));
        }
        if !self.slowest.is_empty() {
            let parts: Vec<String> = self.slowest.iter().map(ToString::to_string).collect();
            lines.push(format!("slowest handshakes: {}", parts.join(", ")));
        }
        lines
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.role == Role::Server { "from" } else { "to" };
        write!(formatter, "{} {way} {}", duration(Some(self.duration_ns)), EndpointText(self.remote))?;
        match self.retransmits {
            Some(0) | None => Ok(()),
            Some(1) => write!(formatter, " (1 resend)"),
            Some(count) => write!(formatter, " ({count} resends)"),
        }
    }
}
