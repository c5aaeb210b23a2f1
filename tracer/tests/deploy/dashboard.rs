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

/// The panels that show something; rows only head them.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "/panels").iter().filter(|panel| text(panel, "/type") != "row")
}

#[test]
fn panels_ask_for_what_there_is() {
    let reference = Reference::read();
    let dashboard = dashboard();
    let mut count = 0;
    for panel in panels(&dashboard) {
        let title = text(panel, "/title");
        let targets = list(panel, "/targets");
        assert!(!targets.is_empty(), "{title} asks for nothing");
        for target in targets {
            promql::check(title, text(target, "/expr"), &reference, &[]);
            assert_eq!(text(target, "/datasource/uid"), "${datasource}", "{title}");
            count += 1;
        }
    }
    assert!(count >= 30, "{count}");
}

#[test]
fn what_one_groups_by_is_a_label_of_all_that_is_grouped() {
    let reference = Reference::read();
    let dashboard = dashboard();
    let by = list(&dashboard, "/templating/list").iter().find(|it| text(it, "/name") == "by").expect("`by`");
    let values: Vec<&str> = text(by, "/query").split(',').collect();
    let options: Vec<&str> = list(by, "/options").iter().map(|option| text(option, "/value")).collect();
    assert_eq!(values, options);
    let grouped: BTreeSet<String> = panels(&dashboard)
        .flat_map(|panel| list(panel, "/targets"))
        .map(|target| promql::read(text(target, "/expr")))
        .filter(|asked| asked.grouped.contains("$by"))
        .flat_map(|asked| asked.series.into_iter().map(|(series, _)| series))
        .collect();
    assert!(grouped.len() >= 3, "{grouped:?}");
    for value in values {
        // These two are always there, but not on every metric; a panel without them shows one line.
        if ["role", "network_type"].contains(&value) {
            continue;
        }
        for series in &grouped {
            assert!(reference.has_label(series, value), "{series} has no {value}");
        }
    }
}

#[test]
fn variables_that_are_used_exist() {
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
fn every_panel_says_what_it_shows_and_in_which_unit() {
    let dashboard = dashboard();
    assert!(number(&dashboard, "/schemaVersion") >= 36);
    let mut titles = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = text(panel, "/title");
        assert!(!title.is_empty() && titles.insert(title), "`{title}` twice, or nothing");
        assert!(text(panel, "/description").len() > 20, "{title} is not described");
        let units = ["/fieldConfig/defaults/unit", "/options/yAxis/unit"].map(|path| text(panel, path));
        assert!(units.iter().any(|unit| !unit.is_empty()), "{title} has no unit");
    }
}

#[test]
fn panels_stand_beside_each_other() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in list(&dashboard, "/panels") {
        let title = text(panel, "/title");
        assert!(ids.insert(number(panel, "/id")), "{title}: its id is another's");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| number(panel, &format!("/gridPos/{side}")));
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} covers another at {cell:?}");
        }
    }
}
