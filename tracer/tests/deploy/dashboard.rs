//! The Grafana dashboard.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{promql, read, reference::Reference};

fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/tcptrace-bpf.json")).expect("the dashboard is JSON")
}

fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {value}"))
}

/// Returns the panels without the rows, which are only headings.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "/panels").iter().filter(|panel| text(panel, "/type") != "row")
}

#[test]
fn panels_query_existing_series() {
    let reference = Reference::read();
    let dashboard = dashboard();
    let mut count = 0;
    for panel in panels(&dashboard) {
        let title = text(panel, "/title");
        let targets = list(panel, "/targets");
        assert!(!targets.is_empty(), "{title} has no query");
        for target in targets {
            promql::check(title, text(target, "/expr"), &reference, &[]);
            assert_eq!(text(target, "/datasource/uid"), "${datasource}", "{title}");
            count += 1;
        }
    }
    assert!(count >= 30, "{count}");
}

#[test]
fn every_grouping_is_a_label_of_every_grouped_series() {
    let reference = Reference::read();
    let dashboard = dashboard();
    let by = list(&dashboard, "/templating/list").iter().find(|it| text(it, "/name") == "by").expect("`by`");
    let values: Vec<&str> = text(by, "/query").split(',').collect();
    let options: Vec<&str> = list(by, "/options").iter().map(|option| text(option, "/value")).collect();
    assert_eq!(values, options);
    let grouped: BTreeSet<String> = panels(&dashboard)
        .flat_map(|panel| list(panel, "/targets"))
        .map(|target| promql::read(text(target, "/expr")))
        .filter(|query| query.grouped.contains("$by"))
        .flat_map(|query| query.series.into_iter().map(|(series, _)| series))
        .collect();
    assert!(grouped.len() >= 3, "{grouped:?}");
    for value in values {
        // These two labels are not on every metric. A panel without them shows one line.
        if ["role", "network_type"].contains(&value) {
            continue;
        }
        for series in &grouped {
            assert!(reference.has_label(series, value), "{series} has no {value}");
        }
    }
}

#[test]
fn used_variables_are_defined() {
    let dashboard = dashboard();
    let defined: BTreeSet<&str> =
        list(&dashboard, "/templating/list").iter().map(|variable| text(variable, "/name")).collect();
    for name in ["datasource", "instance"] {
        assert!(defined.contains(name), "{name}");
    }
    let whole = dashboard.to_string();
    for rest in whole.split('$').skip(1) {
        let rest = rest.trim_start_matches('{');
        let name =
            &rest[..rest.find(|it: char| !it.is_ascii_alphanumeric() && it != '_').unwrap_or(rest.len())];
        let known = defined.contains(name) || ["__rate_interval", "__range", "__all"].contains(&name);
        assert!(known, "${name}");
    }
}

#[test]
fn every_panel_has_a_description_and_a_unit() {
    let dashboard = dashboard();
    assert!(number(&dashboard, "/schemaVersion") >= 36);
    let mut titles = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = text(panel, "/title");
        assert!(!title.is_empty() && titles.insert(title), "`{title}` is empty or duplicate");
        assert!(text(panel, "/description").len() > 20, "{title} is not described");
        let units = ["/fieldConfig/defaults/unit", "/options/yAxis/unit"].map(|path| text(panel, path));
        assert!(units.iter().any(|unit| !unit.is_empty()), "{title} has no unit");
    }
}

#[test]
fn panels_do_not_overlap() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in list(&dashboard, "/panels") {
        let title = text(panel, "/title");
        assert!(ids.insert(number(panel, "/id")), "{title}: duplicate id");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| number(panel, &format!("/gridPos/{side}")));
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} overlaps another panel at {cell:?}");
        }
    }
}
