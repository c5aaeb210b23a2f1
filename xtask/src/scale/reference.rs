//! How many series each metric has, from docs/metrics.md.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};

/// Changes of state of ordinary lives, which are shown from the start. Others appear when they happen.
const USUAL_TRANSITIONS: u32 = 19;
/// States that have a longest time; `tcptrace_stuck_connections` has only these.
const LIMITED_STATES: u32 = 7;
/// Listening ports that a host is taken to have.
const PORTS: u32 = 10;

/// A metric and how many series it has on a host without opt-in labels.
pub(super) struct Metric {
    pub(super) name: String,
    pub(super) kind: String,
    /// Combinations of its labels' values.
    pub(super) combinations: u32,
    /// Series of each: 1, or a histogram's buckets, sum and count.
    pub(super) each: u32,
    /// Whether the opt-in labels are added to it.
    pub(super) owned: bool,
}

impl Metric {
    /// Its series.
    pub(super) fn series(&self) -> u32 {
        self.combinations * self.each
    }
}

/// Every metric.
pub(super) struct Reference {
    pub(super) metrics: Vec<Metric>,
}

impl Reference {
    /// Reads the page.
    ///
    /// # Errors
    ///
    /// When the page has not the form that this is written for; names what is missing.
    pub(super) fn parse(page: &str) -> Result<Self> {
        let values: BTreeMap<String, u32> = rows(page, "label")
            .iter()
            .flat_map(|row| code(&row[0]).into_iter().map(|label| (label, count(&code(&row[1])))))
            .collect();
        let mut bounds = BTreeMap::new();
        for (names, listed) in
            page.lines().filter_map(|line| line.strip_prefix("- `tcptrace_")?.rsplit_once(": "))
        {
            for name in code(&format!("`tcptrace_{names}")) {
                bounds.insert(name, count(&listed.split(", ").collect::<Vec<_>>()));
            }
        }
        let metrics = rows(page, "metric")
            .iter()
            .map(|row| {
                let name = code(&row[0]).pop().context("a metric of docs/metrics.md has no name")?;
                let labels = code(&row[2]);
                let each = match (row[1].as_str(), bounds.get(&name)) {
                    // An infinite bucket, the sum and the count beside those with a bound.
                    ("histogram", Some(bounds)) => bounds + 3,
                    ("histogram", None) => bail!("docs/metrics.md has no boundaries of {name}"),
                    _ => 1,
                };
                let combinations = combinations(&name, &labels, &values)?;
                Ok(Metric { kind: row[1].clone(), owned: row[2].contains('+'), name, combinations, each })
            })
            .collect::<Result<Vec<_>>>()?;
        if metrics.is_empty() {
            bail!("docs/metrics.md has no table whose first column is `metric`");
        }
        Ok(Self { metrics })
    }

    /// Series of a host without opt-in labels.
    pub(super) fn series(&self) -> u32 {
        self.metrics.iter().map(Metric::series).sum()
    }

    /// A metric.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub(super) fn metric(&self, name: &str) -> Result<&Metric> {
        self.metrics
            .iter()
            .find(|metric| metric.name == name)
            .with_context(|| format!("docs/metrics.md has no metric {name}"))
    }
}

/// How many combinations of values a metric's labels have on a usual host.
fn combinations(name: &str, labels: &[String], values: &BTreeMap<String, u32>) -> Result<u32> {
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let opening = name.contains("handshake") || name.contains("syn_retransmits");
    labels.iter().try_fold(1, |product, label| {
        let count = match *label {
            // The pairs count as one.
            "from" => USUAL_TRANSITIONS,
            "state" if name.contains("stuck") => LIMITED_STATES,
            "port" => PORTS,
            // A host has one of each of the others at a time.
            "to" | "mode" | "kernel" | "version" => 1,
            // The third, simultaneous opening, is shown when it happens.
            "role" if name == "tcptrace_handshake_duration_seconds" => 2,
            // Openings have no role `unknown`.
            "role" if opening => values.get("role").context("docs/metrics.md lists no roles")? - 1,
            label => *values.get(label).with_context(|| {
                format!("docs/metrics.md does not list the values of {label}, a label of {name}")
            })?,
        };
        Ok(product * count)
    })
}

/// How many there are; a page has no more than fit.
fn count<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}

/// The rows of the table whose first column has this title.
fn rows(text: &str, title: &str) -> Vec<Vec<String>> {
    text.lines()
        .skip_while(|line| cells(line).first().is_none_or(|first| first != title))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect()
}

fn cells(line: &str) -> Vec<String> {
    let inner = line.strip_prefix('|').and_then(|line| line.trim_end().strip_suffix('|'));
    inner.map_or_else(Vec::new, |inner| inner.split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// The words in backticks.
fn code(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
| metric | kind | labels | meaning |
|---|---|---|---|
| `tcptrace_handshake_duration_seconds` | histogram | `role`, `network_type`, + | How long |
| `tcptrace_handshakes_total` | counter | `role`, `result`, + | How many |
| `tcptrace_connections_tracked` | gauge |  | In the table |

| label | values |
|---|---|
| `role` | `client`, `server`, `simultaneous`, `unknown` |
| `network_type` | `ipv4`, `ipv6` |
| `result` | `established`, `refused` |

- `tcptrace_handshake_duration_seconds`, `tcptrace_handshake_rtt_seconds`: 0.1, 0.95, 131
";

    #[test]
    fn series_are_the_product_of_values_and_buckets() {
        let reference = Reference::parse(PAGE).unwrap();
        let counts: Vec<_> =
            reference.metrics.iter().map(|metric| (metric.combinations, metric.each, metric.owned)).collect();
        assert_eq!(counts, [(4, 6, true), (6, 1, true), (1, 1, false)]);
        assert_eq!(reference.series(), 31);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (from, to, named) in [
            (
                "- `tcptrace_handshake",
                "- `other_handshake",
                "boundaries of tcptrace_handshake_duration_seconds",
            ),
            ("| `result` |", "| `outcome` |", "values of result"),
            ("| metric |", "| name |", "no table"),
        ] {
            let error = Reference::parse(&PAGE.replace(from, to)).err().unwrap().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
