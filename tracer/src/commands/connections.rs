//! `connections`: a line per connection when its life ends.

use std::io::{self, Stdout};

use super::live::Consumer;
use crate::{
    cli::Shared,
    filter::Filter,
    lifecycle::Observation,
    output::{ConnectionRow, Sink},
    source::ClockOffset,
};

pub(super) struct Connections {
    sink: Sink<Stdout>,
    filter: Filter,
    clock: ClockOffset,
    count: Option<u64>,
}

impl Connections {
    pub(super) fn new(shared: &Shared) -> Self {
        Self {
            sink: Sink::new(io::stdout(), shared.output, shared.time),
            filter: shared.filter(),
            clock: ClockOffset { to_utc_ns: 0 },
            count: shared.count,
        }
    }
}

impl Consumer for Connections {
    fn begin(&mut self, clock: ClockOffset) -> io::Result<()> {
        self.clock = clock;
        self.sink.begin::<ConnectionRow>()
    }

    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        match observation {
            Observation::Closed(closed) if self.filter.shows_connection(&closed) => {
                self.sink.write(&ConnectionRow::new(&closed, self.clock))
            }
            _ => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }

    fn done(&self) -> bool {
        self.count.is_some_and(|count| self.sink.rows() >= count)
    }
}
