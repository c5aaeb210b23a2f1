//! The metrics according to docs/metrics.md. Another test checks that page against the code.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    markdown::{code, table},
    read,
};

/// Every metric with its labels and label values.
pub(crate) struct Reference {
    metrics: BTreeMap<String, Metric>,
    values: BTreeMap<String, BTreeSet<String>>,
    opt_in: BTreeSet<String>,
    /// Upper bounds of classic buckets, by metric.
    bounds: BTreeMap<String, BTreeSet<String>>,
}

struct Metric {
    histogram: bool,
    labels: BTreeSet<String>,
    /// Whether the opt-in labels apply.
    owned: bool,
}

/// Labels that Prometheus adds to every series.
const TARGET: [&str; 2] = ["job", "instance"];

impl Reference {
    pub(crate) fn read() -> Self {
        let text = read("docs/metrics.md");
        let metrics: BTreeMap<_, _> = table(&text, "metric")
            .into_iter()
            .map(|row| {
                let metric = Metric {
                    histogram: row[1] == "histogram",
                    labels: code(&row[2]).into_iter().collect(),
                    owned: row[2].contains('+'),
                };
                (code(&row[0]).remove(0), metric)
            })
            .collect();
        let mut values = BTreeMap::new();
        for row in table(&text, "label") {
            let listed: BTreeSet<_> = code(&row[1]).into_iter().collect();
            for label in code(&row[0]) {
                values.insert(label, listed.clone());
            }
        }
        let opt_in = table(&text, "option").into_iter().flat_map(|row| code(&row[1])).collect();
        let mut bounds = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("- `tcptrace_")) {
            let (names, listed) = line.rsplit_once(": ").expect("names, a colon, bounds");
            let listed: BTreeSet<String> = listed.split(", ").map(str::to_owned).collect();
            for name in code(names) {
                bounds.insert(name, listed.clone());
            }
        }
        let reference = Self { metrics, values, opt_in, bounds };
        assert!(reference.metrics.len() > 20, "only {} metrics in docs/metrics.md", reference.metrics.len());
        assert!(reference.opt_in.len() >= 5, "{:?}", reference.opt_in);
        reference
    }

    /// Returns the metric of a series. A histogram has three series names.
    fn metric(&self, series: &str) -> Option<(&str, &Metric)> {
        let found =
            |name: &str| self.metrics.get_key_value(name).map(|(name, metric)| (name.as_str(), metric));
        found(series).filter(|(_, metric)| !metric.histogram).or_else(|| {
            let (name, _) = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| series.strip_suffix(suffix).map(|name| (name, suffix)))?;
            found(name).filter(|(_, metric)| metric.histogram)
        })
    }

    /// Returns whether the series exists.
    pub(crate) fn has(&self, series: &str) -> bool {
        series == "up" || self.metric(series).is_some()
    }

    /// Returns whether the series can have the label.
    pub(crate) fn has_label(&self, series: &str, label: &str) -> bool {
        TARGET.contains(&label)
            || self.metric(series).is_some_and(|(_, metric)| {
                metric.labels.contains(label)
                    || (metric.owned && self.opt_in.contains(label))
                    || (label == "le" && series.ends_with("_bucket"))
            })
    }

    /// Returns whether the label of the series can have the value. Labels with open value sets accept every value.
    pub(crate) fn has_value(&self, series: &str, label: &str, value: &str) -> bool {
        if label == "le" {
            let name = self.metric(series).expect("the caller checked `has`").0;
            return value == "+Inf" || self.bounds.get(name).is_some_and(|bounds| bounds.contains(value));
        }
        // The tables do not list the values of `mode` and `kernel`.
        let known = self.values.get(label);
        // The kernel names the reasons for refused and dropped segments.
        let by_kernel = label == "reason" && series != "tcptrace_connections_closed_total";
        let closed = !TARGET.contains(&label) && label != "label" && !by_kernel;
        known.is_none_or(|values| values.contains(value)) || !closed
    }
}
