//! The Prometheus rules and their tests.

use std::collections::BTreeMap;

use crate::{promql, read, reference::Reference, tool};

const RECORDING: &str = "deploy/prometheus/recording.rules.yaml";
const ALERTING: &str = "deploy/prometheus/alerting.rules.yaml";
const TESTS: [&str; 3] = ["agent.yaml", "connections.yaml", "handshakes.yaml"];

/// The address that a user replaces. Names below `.invalid` belong to nobody (RFC 2606).
const RUNBOOK_BASE: &str = "https://tcptrace-bpf.invalid/";

/// Returns all values of a key in a YAML file; a block value as one text.
fn values(text: &str, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let bare = line.trim_start().trim_start_matches("- ");
        let Some(value) = bare.strip_prefix(key).and_then(|rest| rest.strip_prefix(':')) else { continue };
        let depth = line.len() - bare.len();
        let mut value = value.trim().trim_matches('\'').to_owned();
        if matches!(value.as_str(), "|" | ">-") {
            value.clear();
            while let Some(line) = lines.next_if(|line| line.len() - line.trim_start().len() > depth) {
                value.push_str(line.trim());
                value.push('\n');
            }
        }
        found.push(value);
    }
    assert!(!found.is_empty(), "no `{key}`");
    found
}

#[test]
fn rules_query_existing_series() {
    let reference = Reference::read();
    let recording = read(RECORDING);
    let recorded = values(&recording, "record");
    for (place, text) in [(RECORDING, &recording), (ALERTING, &read(ALERTING))] {
        for expression in values(text, "expr") {
            promql::check(place, &expression, &reference, &recorded);
        }
    }
}

#[test]
fn rule_tests_feed_existing_series() {
    let reference = Reference::read();
    let recorded = values(&read(RECORDING), "record");
    for name in TESTS {
        let text = read(&format!("deploy/prometheus/tests/{name}"));
        for series in values(&text, "series") {
            promql::check(name, &series, &reference, &recorded);
        }
    }
}

#[test]
fn every_recording_rule_is_tested_or_used() {
    let recorded = values(&read(RECORDING), "record");
    let used: String =
        TESTS.map(|name| read(&format!("deploy/prometheus/tests/{name}"))).concat() + &read(ALERTING);
    for name in recorded {
        assert!(used.contains(&name), "{name}");
    }
}

#[test]
fn every_alert_is_tested_to_fire_and_not_to_fire() {
    let mut seen: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    for name in TESTS {
        let text = read(&format!("deploy/prometheus/tests/{name}"));
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(alert) = line.trim().strip_prefix("alertname: ") else { continue };
            let outcome = lines.next().unwrap_or_default().trim();
            let entry = seen.entry(alert.to_owned()).or_default();
            match outcome {
                "exp_alerts: []" => entry.1 = true,
                "exp_alerts:" => entry.0 = true,
                other => panic!("{name}: {alert}: `{other}` where exp_alerts belongs"),
            }
        }
    }
    for alert in values(&read(ALERTING), "alert") {
        assert_eq!(seen.get(&alert), Some(&(true, true)), "{alert}: (fires, does not fire)");
    }
}

#[test]
fn every_alert_has_a_severity_and_a_runbook() {
    let text = read(ALERTING);
    let alerts = values(&text, "alert");
    let operating = read("docs/operating.md");
    let runbooks = values(&text, "runbook_url");
    let link = |alert: &String| format!("{RUNBOOK_BASE}docs/operating.md#{}", alert.to_lowercase());
    assert_eq!(runbooks, alerts.iter().map(link).collect::<Vec<_>>());
    let chart = read("deploy/helm/tcptrace-bpf/values.yaml");
    assert!(chart.contains(&format!("runbookBaseUrl: \"{RUNBOOK_BASE}\"")), "{chart}");
    let template = read("deploy/helm/tcptrace-bpf/templates/prometheus-rules.yaml");
    assert!(template.contains(&format!("replace \"{RUNBOOK_BASE}\" $.Values")), "{template}");
    assert!(operating.contains(&format!("s|{RUNBOOK_BASE}|")), "docs/operating.md has the command");
    for alert in &alerts {
        assert!(
            operating.lines().any(|line| line == format!("### {alert}")),
            "docs/operating.md lacks {alert}"
        );
    }
    for heading in operating.lines().filter_map(|line| line.strip_prefix("### Tcptrace")) {
        assert!(
            alerts.contains(&format!("Tcptrace{heading}")),
            "docs/operating.md: no alert Tcptrace{heading}"
        );
    }
    for key in ["severity", "summary", "description", "for", "expr"] {
        assert_eq!(values(&text, key).len(), alerts.len(), "{key}");
    }
    for severity in values(&text, "severity") {
        assert!(["critical", "warning", "info"].contains(&severity.as_str()), "{severity}");
    }
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() {
    tool(
        "prometheus",
        "deploy/prometheus",
        "promtool",
        &["check", "rules", "recording.rules.yaml", "alerting.rules.yaml"],
    );
    let mut arguments = vec!["test", "rules"];
    arguments.extend(TESTS);
    let text = tool("prometheus", "deploy/prometheus/tests", "promtool", &arguments);
    assert_eq!(text.matches("SUCCESS").count(), TESTS.len(), "{text}");
}
