//! Groups connections by their process.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
};

use tracer_core::{
    analysis::ConnectionReading,
    event::{Process, TcpState},
    lifecycle::Connection,
};

use crate::top::{OwnerLine, Query, Sort, connection_lines::MAX_LINES};

/// Most processes that are counted separately.
const MAX_OWNERS: usize = 10_000;

/// Processes with their connections.
#[derive(Default)]
pub(super) struct Owners(BTreeMap<Option<([u8; 16], u32)>, Owned>);

/// The connections of a process.
struct Owned {
    process: Option<Process>,
    states: BTreeMap<TcpState, u64>,
    sent_rate: Option<u64>,
    received_rate: Option<u64>,
}

impl Owners {
    /// Counts a connection with its last reading for its process.
    pub(super) fn add(&mut self, connection: &Connection, reading: Option<&ConnectionReading>) {
        let process = connection.owner.process;
        let count = self.0.len();
        let owned = match self.0.entry(process.map(|process| (process.comm, process.pid))) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if count >= MAX_OWNERS => return,
            Entry::Vacant(entry) => {
                entry.insert(Owned { process, states: BTreeMap::new(), sent_rate: None, received_rate: None })
            }
        };
        *owned.states.entry(connection.state()).or_default() += 1;
        if let Some(rates) = reading.and_then(|reading| reading.rates) {
            let add = |sum: &mut Option<u64>, rate: u64| *sum = Some(sum.unwrap_or(0).saturating_add(rate));
            add(&mut owned.sent_rate, rates.sent);
            add(&mut owned.received_rate, rates.received);
        }
    }

    /// Returns the first processes in the order of a query.
    pub(super) fn lines(self, query: &Query) -> Vec<OwnerLine> {
        // The processes are in the order of their names, and equal keys keep it.
        let mut lines: Vec<OwnerLine> = self.0.into_values().map(line).collect();
        match query.sort {
            Sort::Process => {}
            Sort::SentRate => lines.sort_by_key(|line| Reverse((line.sent_rate, line.count))),
            Sort::ReceivedRate => lines.sort_by_key(|line| Reverse((line.received_rate, line.count))),
            _ => lines.sort_by_key(|line| Reverse(line.count)),
        }
        if query.reversed {
            lines.reverse();
        }
        lines.truncate(MAX_LINES);
        lines
    }
}

fn line(owned: Owned) -> OwnerLine {
    let Owned { process, states, sent_rate, received_rate } = owned;
    let mut states: Vec<(TcpState, u64)> = states.into_iter().collect();
    states.sort_by_key(|&(state, count)| (Reverse(count), state));
    let count = states.iter().map(|(_, count)| count).sum();
    OwnerLine { process, count, states, sent_rate, received_rate }
}
