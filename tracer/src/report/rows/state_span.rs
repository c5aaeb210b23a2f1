//! One state of a connection, as an object in a list and as text.

use std::fmt;

use tracer_core::lifecycle::{DurationSource, StateSpan};

use crate::report::{
    fields::fields,
    text::{
        Text,
        quantity::{self, microseconds},
    },
};

fields! { StateSpan, |span| {
    /// The state
    state: &'static str = span.state.name();
    /// Time spent in the state; null if its start or its end was not seen
    duration_us: Option<f64> ["us"] = span.duration.map(microseconds);
    /// `observed`: between two transitions. `measured`: the kernel's round-trip sample, for a server's
    /// `syn_received`. `modelled`: derived from the protocol's timers
    source: &'static str = span.source.name();
}}

/// The states of a connection on one line; `~` marks modelled durations.
#[derive(Clone, Copy, Debug)]
pub(super) struct StatesText<'a>(pub(super) &'a [StateSpan]);

impl Text for StatesText<'_> {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        for (index, span) in self.0.iter().enumerate() {
            text.write_str(if index == 0 { "" } else { " > " })?;
            text.write_str(span.state.kernel_name())?;
            text.write_str(if span.source == DurationSource::Modelled { " ~" } else { " " })?;
            quantity::duration(span.duration).write_to(text)?;
        }
        Ok(())
    }
}
