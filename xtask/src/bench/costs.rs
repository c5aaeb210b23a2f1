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
    /// Connections a second without a tracer.
    alone: Option<f64>,
    /// Transitions of one connection.
    transitions: Option<f64>,
}

impl Costs {
    /// Records nanoseconds of a tracer's BPF programs per transition.
    pub(super) fn kernel(&mut self, name: &'static str, ns: f64) {
        self.of(name).kernel_ns = Some(ns);
    }

    /// Records seconds of a tracer's processes per million transitions.
    pub(super) fn processes(&mut self, name: &'static str, seconds: f64) {
        self.of(name).processor_s = Some(seconds);
    }

    /// Records the share of the connection rate that remains with a tracer.
    pub(super) fn kept(&mut self, name: &'static str, kept: f64) {
        self.of(name).kept = Some(kept);
    }

    /// Connections a second without a tracer.
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

    /// Returns the section; `None` unless everything was measured and the load occupies all processors.
    pub(super) fn section(&self, processors: usize) -> Option<Section> {
        let transitions = self.transitions.filter(|_| processors <= LOAD)?;
        // Microseconds of all processors.
        #[expect(clippy::cast_precision_loss, reason = "no machine has so many")]
        let connection = processors as f64 / self.alone? * 1e6;
        let mut table = Table::new(&[
            "tracer",
            "its programs, us a connection",
            "its processes, us a connection",
            "kept, if that were all",
            "kept, as measured",
        ]);
        for Cost { name, kernel_ns, processor_s, kept } in &self.tracers {
            // A microsecond for each transition is a second for a million of them.
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
            title: "What a connection pays",
            text: format!(
                "The sum of the parts above. A connection of the churn takes {connection:.1} us of the processors' time without \
                 a tracer, both ends and {transitions:.0} transitions. To keep 0.97 of the rate everything that a tracer does \
                 for them must fit into {:.2} us; to keep 0.90, into {:.2} us. A host that makes a tenth of these \
                 connections a second gives a tracer a tenth of the processors' time that this one does. The programs' \
                 time is that with the kernel's statistics, which cost something themselves and leave out what \
                 entering a program takes. What is kept is less than this sum where processes and programs also take \
                 each other's caches.",
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
    fn there_is_a_sum_when_all_is_measured() {
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
