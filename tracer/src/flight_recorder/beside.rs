//! A consumer with a flight recorder beside it.

use std::io;

use tracer_core::{event::Event, lifecycle::Observation};

use crate::{
    event_loop::{Consumer, Progress},
    flight_recorder::FlightRecorder,
    report::Summary,
};

/// Passes everything to a consumer and to the flight recorder, if there is one.
pub(crate) struct WithFlightRecorder<C> {
    consumer: C,
    recorder: Option<FlightRecorder>,
}

impl<C> WithFlightRecorder<C> {
    pub(crate) fn new(consumer: C, recorder: Option<FlightRecorder>) -> Self {
        Self { consumer, recorder }
    }

    fn recorder(&mut self, call: impl FnOnce(&mut FlightRecorder) -> io::Result<()>) -> io::Result<()> {
        self.recorder.as_mut().map_or(Ok(()), call)
    }
}

impl<C: Consumer> Consumer for WithFlightRecorder<C> {
    fn begin(&mut self) -> io::Result<()> {
        self.consumer.begin()?;
        self.recorder(Consumer::begin)
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.consumer.event(event)?;
        self.recorder(|recorder| recorder.event(event))
    }

    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        self.consumer.observe(observation)?;
        self.recorder(|recorder| recorder.observe(observation))
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        self.consumer.flush(progress)?;
        self.recorder(|recorder| recorder.flush(progress))
    }

    fn done(&self) -> bool {
        self.consumer.done()
    }

    fn stays(&self) -> bool {
        self.consumer.stays()
    }

    fn writes_to_stdout(&self) -> bool {
        self.consumer.writes_to_stdout()
    }

    fn finish(&mut self, progress: Progress<'_>) -> io::Result<()> {
        self.consumer.finish(progress)?;
        self.recorder(|recorder| recorder.finish(progress))
    }

    fn end(&mut self, summary: &Summary) -> io::Result<()> {
        self.consumer.end(summary)?;
        self.recorder(|recorder| recorder.end(summary))
    }
}
