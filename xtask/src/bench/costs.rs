//! Adds up the cost of tracing a connection from the results of the other parts.

use super::page::{Section, Table};

/// Processors that the load keeps busy: a client and a server.
const LOAD: usize = 2;

/// Results of one tracer so far.
#[derive(Debug, Default)]
struct Cost {
    name: &'static str,
    kernel_ns: Option<f64>,
    processor_s: Option<f64>,
    kept: Option<f64>,
}

/// Results of the parts, by tracer.
#[derive(Debug, Default)]
pub(super) struct Costs {
    tracers: Vec<Cost>,
    /// Connections per second without a tracer.
    alone: Option<f64>,
    /// Transitions of one connection.
    transitions: Option<f64>,
}

impl Costs {
    /// Records the run time of a tracer's BPF programs, in nanoseconds per transition.
    pub(super) fn kernel(&mut self, name: &'static str, ns: f64) {
        self.of(name).kernel_ns = Some(ns);
    }

    /// Records the processor time of a tracer's processes, in seconds per million transitions.
    pub(super) fn processes(&mut self, name: &'static str, seconds: f64) {
        self.of(name).processor_s = Some(seconds);
    }

    /// Records the connection rate with a tracer, relative to the rate without one.
    pub(super) fn kept(&mut self, name: &'static str, kept: f64) {
        self.of(name).kept = Some(kept);
    }

    /// Records the connections per second without a tracer.
    pub(super) fn alone(&mut self, rate: f64) {
        self.alone = Some(rate);
    }

    /// Records the number of transitions per connection.
    pub(super) fn transitions(&mut self, transitions: f64) {
        self.transitions = Some(transitions);
    }

    fn of(&mut self, name: &'static str) -> &mut Cost {
        let place = self.tracers.iter().position(|cost| cost.name == name).unwrap_or_else(|| {
            self.tracers.push(Cost { name, ..Cost::default() });
            self.tracers.len() - 1
        });
        &mut self.tracers[place]
    }

    /// Returns the section; `None` unless all parts were measured and the load keeps all processors busy.
    pub(super) fn section(&self, processors: usize) -> Option<Section> {
        let transitions = self.transitions.filter(|_| processors <= LOAD)?;
        // Processor time of a connection without a tracer, in microseconds over all processors.
        #[expect(clippy::cast_precision_loss, reason = "the number of processors is small")]
        let connection = processors as f64 / self.alone? * 1e6;
        let mut table = Table::new(&[
            "tracer",
            "BPF programs, us per connection",
            "processes, us per connection",
            "expected relative rate",
            "measured relative rate",
        ]);
        for Cost { name, kernel_ns, processor_s, kept } in &self.tracers {
            // Seconds per million transitions are microseconds per transition.
            let (programs, processes) = ((*kernel_ns)? * transitions / 1e3, (*processor_s)? * transitions);
            let expected = connection / (connection + programs + processes);
            table.row([
                (*name).to_owned(),
                format!("{programs:.2}"),
                format!("{processes:.2}"),
                format!("{expected:.2}"),
                format!("{:.2}", (*kept)?),
            ]);
        }
        let left = |kept: f64| connection * (1.0 / kept - 1.0);
        Some(Section {
            title: "Cost per connection",
            text: format!(
                "The sum of the parts above. Without a tracer, a connection of the churn takes {connection:.1} us of \
                 processor time, with both ends and {transitions:.0} transitions. To keep 0.97 of the rate, all work of \
                 a tracer for a connection must fit into {:.2} us; to keep 0.90, into {:.2} us. At a tenth of this \
                 connection rate, a tracer takes a tenth of the processor time. The kernel's statistics measure the run \
                 time of BPF programs: the figure includes the cost of the statistics and excludes the cost of entering \
                 a program. The measured rate is lower than the expected one where processes and BPF programs evict \
                 each other's data from the caches.",
                left(0.97),
                left(0.90),
            ),
            tables: vec![table],
            targets: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_needs_every_part_and_a_saturated_machine() {
        let mut costs = Costs::default();
        costs.kernel("a", 100.0);
        costs.processes("a", 0.3);
        costs.alone(50_000.0);
        costs.transitions(10.0);
        assert!(costs.section(2).is_none());
        costs.kept("a", 0.9);
        assert!(costs.section(4).is_none());
        let section = costs.section(2).unwrap();
        assert!(section.text.contains("takes 40.0 us"), "{}", section.text);
        assert!(section.text.contains("into 1.24 us; to keep 0.90, into 4.44 us"), "{}", section.text);
        let table = format!("{:?}", section.tables);
        assert!(table.contains(r#"["a", "1.00", "3.00", "0.91", "0.90"]"#), "{table}");
    }
}
