//! The report of `connections` and `transitions` at exit: close reasons and the slowest handshakes.

use std::{cmp::Reverse, fmt};

use tracer_core::{
    counted::counted,
    event::{Endpoint, Nanos},
    lifecycle::{CloseReason, ClosedConnection, Role},
};

use crate::report::text::{endpoint::EndpointText, marks::reason_mark, quantity, style::Palette};

/// Close reasons and handshakes that are shown.
const SHOWN: usize = 3;

/// Counts close reasons and keeps the slowest handshakes, in constant memory.
#[derive(Clone, Debug, Default)]
pub struct ExitReport {
    reasons: [u64; CloseReason::ALL.len()],
    slowest: arrayvec::ArrayVec<SlowHandshake, SHOWN>,
}

#[derive(Clone, Copy, Debug)]
struct SlowHandshake {
    duration: Nanos,
    role: Role,
    remote: Endpoint,
    retransmits: Option<u8>,
}

impl ExitReport {
    /// Adds a closed connection.
    pub fn take(&mut self, closed: &ClosedConnection<'_>) {
        let index = CloseReason::ALL.iter().position(|reason| *reason == closed.close_cause.reason);
        if let Some(count) = index.and_then(|index| self.reasons.get_mut(index)) {
            *count += 1;
        }
        let connection = closed.connection;
        let completed = connection.handshake.filter(|_| !connection.never_established());
        let Some((handshake, duration)) =
            completed.and_then(|handshake| Some((handshake, handshake.duration?)))
        else {
            return;
        };
        let faster = self.slowest.iter().position(|other| other.duration < duration);
        let index = match faster {
            Some(index) => index,
            None if self.slowest.is_full() => return,
            None => self.slowest.len(),
        };
        if self.slowest.is_full() {
            self.slowest.pop();
        }
        let (role, remote) = (connection.role, connection.remote);
        self.slowest
            .insert(index, SlowHandshake { duration, role, remote, retransmits: handshake.retransmits });
    }

    /// Returns the lines of the report; empty if no connection closed.
    pub fn lines(&self, palette: Palette) -> Vec<String> {
        let mut reasons: Vec<(CloseReason, u64)> =
            CloseReason::ALL.into_iter().zip(self.reasons).filter(|(_, count)| *count != 0).collect();
        reasons.sort_by_key(|(_, count)| Reverse(*count));
        let mut lines = Vec::new();
        if !reasons.is_empty() {
            let others: u64 = reasons.iter().skip(SHOWN).map(|(_, count)| count).sum();
            let mut parts: Vec<String> = reasons
                .iter()
                .take(SHOWN)
                .map(|(reason, count)| {
                    palette.painted(format!("{count} {}", reason.name()), reason_mark(*reason))
                })
                .collect();
            if others != 0 {
                parts.push(counted(others, "other"));
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

impl fmt::Display for SlowHandshake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let preposition = if self.role == Role::Server { "from" } else { "to" };
        write!(
            formatter,
            "{} {preposition} {}",
            quantity::duration(Some(self.duration)),
            EndpointText(self.remote)
        )?;
        match self.retransmits {
            Some(0) | None => Ok(()),
            Some(count) => write!(formatter, " ({})", counted(count, "resend")),
        }
    }
}
