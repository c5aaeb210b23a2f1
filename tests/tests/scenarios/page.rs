//! The live page and its API: the same numbers as `/metrics`, in a real browser too.

use std::process::Command;

use serde_json::Value;
use tcptrace_tests::{
    Daemon, Namespace, http,
    process::own_name,
    sockets::{self, Pair},
    wait,
};

fn overview(daemon: &Daemon, query: &str) -> Value {
    let response = daemon.get(&format!("/api/v1/overview{query}")).unwrap();
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_str(response.text().as_str()).unwrap()
}

fn series(edge: &Value) -> String {
    let (from, to) = (edge["from"].as_str().unwrap(), edge["to"].as_str().unwrap());
    format!("tcptrace_transitions_total{{from=\"{from}\",to=\"{to}\"}}")
}

/// Opens connections, closes most of them, and waits until the daemon has counted them.
fn traffic(namespace: &Namespace, daemon: &Daemon) -> Vec<Pair> {
    for _ in 0..20 {
        let Pair { client, server, listener: _listener } = sockets::pair(namespace, "127.0.0.1:0");
        drop(client);
        sockets::wait_for_end(&server);
    }
    let held = (0..4).map(|_| sockets::pair(namespace, "127.0.0.1:0")).collect();
    daemon.wait_for(r#"tcptrace_transitions_total{from="syn_sent",to="established"}"#, 24.0);
    daemon.wait_for(r#"tcptrace_transitions_total{from="last_ack",to="closed"}"#, 20.0);
    held
}

#[test]
fn api_has_the_numbers_of_the_metrics_and_filters_them() {
    let namespace = Namespace::new();
    let daemon = Daemon::start(&namespace, &[]);
    let held = traffic(&namespace, &daemon);
    let document = overview(&daemon, "");
    for edge in document["edges"].as_array().unwrap() {
        let counted = daemon.value(&series(edge)).unwrap_or(0.0);
        assert_eq!(edge["total"].as_f64(), Some(counted), "{edge}");
    }
    for state in document["states"].as_array().unwrap() {
        let name = state["state"].as_str().unwrap();
        let counted = daemon.value(&format!("tcptrace_connections{{state=\"{name}\"}}"));
        assert_eq!(state["connections"].as_f64(), counted, "{state}");
    }
    let port = sockets::port(&held[0].listener);
    let filtered = overview(&daemon, &format!("?port={port}"));
    let established = filtered["states"].as_array().unwrap().iter().find(|it| it["state"] == "established");
    // Both ends of one connection.
    assert_eq!(established.unwrap()["connections"], 2);
    assert_eq!(daemon.get("/api/v1/overview?port=none").unwrap().status, 400);
}

#[test]
fn page_is_protected_and_can_be_turned_off() {
    let namespace = Namespace::new();
    let daemon = Daemon::start(&namespace, &["--page-host", "node.example"]);
    for (host, status) in [("Host: attacker.example\r\n", 421), ("Host: node.example:80\r\n", 200)] {
        for path in ["/", "/api/v1/overview"] {
            assert_eq!(http::get(daemon.address, path, host).unwrap().status, status, "{host} {path}");
        }
    }
    let without = Daemon::start(&namespace, &["--no-page"]);
    assert_eq!(without.get("/api/v1/overview").unwrap().status, 404);
    assert_eq!(without.get("/").unwrap().status, 200);
}

/// Opens a page in a browser and returns what it shows after some seconds, and the lines of its console.
fn browse(daemon: &Daemon, query: &str) -> (String, Vec<String>) {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"])
        .arg("--virtual-time-budget=5000")
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://{}/{query}", daemon.address))
        .output()
        .unwrap_or_else(|error| panic!("chromium cannot start: {error}; `cargo xtask test` installs it"));
    let log = String::from_utf8_lossy(&output.stderr);
    let console = log.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect();
    (String::from_utf8_lossy(&output.stdout).into_owned(), console)
}

/// Returns the attribute of the element with another attribute.
fn attribute<'a>(page: &'a str, of: &str, name: &str) -> Option<&'a str> {
    let element = page.split('<').find(|element| element.contains(of))?;
    element.split(&format!(" {name}=\"")).nth(1)?.split('"').next()
}

#[test]
fn browser_shows_the_numbers_of_the_metrics_without_an_error() {
    let namespace = Namespace::new();
    let daemon = Daemon::start(&namespace, &[]);
    let held = traffic(&namespace, &daemon);
    wait::until("a page with numbers", || {
        let (page, _) = browse(&daemon, "");
        attribute(&page, "data-edge=\"syn_sent established\"", "data-count").map(|_| ())
    });
    let (page, console) = browse(&daemon, "");
    assert_eq!(console, Vec::<String>::new());
    for edge in overview(&daemon, "")["edges"].as_array().unwrap() {
        let name =
            format!("data-edge=\"{} {}\"", edge["from"].as_str().unwrap(), edge["to"].as_str().unwrap());
        let shown = attribute(&page, &name, "data-count").and_then(|count| count.parse::<f64>().ok());
        assert_eq!(shown, Some(daemon.value(&series(edge)).unwrap_or(0.0)), "{name}");
    }
    // The rows of a table, as HTML.
    let rows = |table: &str| {
        let rest = page.split(&format!("id=\"{table}\"")).nth(1).unwrap_or_else(|| panic!("no {table}"));
        rest.split("</tbody>").next().unwrap().to_owned()
    };
    assert!(rows("listeners").contains(&format!("process={}", own_name())), "{}", rows("listeners"));
    assert!(rows("edges").contains(">ESTABLISHED</td>"), "{}", rows("edges"));
    assert!(rows("minutes").contains("data-head=\"Completed\""), "{}", rows("minutes"));
    let port = sockets::port(&held[0].listener);
    let (page, console) = browse(&daemon, &format!("?port={port}"));
    assert_eq!(console, Vec::<String>::new());
    assert_eq!(attribute(&page, "data-state=\"established\"", "data-connections"), Some("2"));
}
