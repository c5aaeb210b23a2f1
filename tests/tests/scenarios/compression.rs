//! Compressed pages of the daemon.

use std::{collections::BTreeMap, io::Read as _};

use flate2::read::GzDecoder;
use serde_json::Value;
use tcptrace_tests::{Daemon, Namespace, http, http::Response, sockets};

fn request(daemon: &Daemon, path: &str, accepted: &str) -> Response {
    let header = format!("Accept-Encoding: {accepted}\r\n");
    let response = http::get(daemon.address, path, &header).unwrap();
    assert_eq!(response.status, 200, "{path}: {response:?}");
    response
}

/// Returns a header's value, in lower case.
fn header(response: &Response, name: &str) -> Option<String> {
    let head = response.head.to_ascii_lowercase();
    head.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.trim().to_owned()))
}

/// Decompresses a response.
fn whole(response: &Response) -> String {
    let mut text = String::new();
    let read = GzDecoder::new(&response.body[..]).read_to_string(&mut text);
    read.unwrap_or_else(|error| panic!("{error}: {response:?}"));
    text
}

#[test]
fn pages_are_compressed_for_clients_that_ask_for_it() {
    let namespace = Namespace::new();
    let daemon = Daemon::start(&namespace, &[]);
    let _held = sockets::pair(&namespace, "127.0.0.1:0");
    daemon.wait_for(r#"tcptrace_transitions_total{from="syn_sent",to="established"}"#, 1.0);
    for path in ["/", "/page.js", "/page.css", "/api/v1/overview", "/api/v1/openapi.json", "/metrics"] {
        let plain = request(&daemon, path, "gzip;q=0, br");
        let small = request(&daemon, path, "br;q=1.0, gzip;q=0.8, *;q=0.1");
        for (response, encoding) in [(&plain, None), (&small, Some("gzip"))] {
            assert_eq!(header(response, "content-encoding").as_deref(), encoding, "{path}: {response:?}");
            let vary = header(response, "vary").unwrap_or_default();
            assert!(vary.contains("accept-encoding"), "{path}: {vary}");
            let length = header(response, "content-length").and_then(|length| length.parse().ok());
            assert_eq!(length, Some(response.body.len()), "{path}");
        }
        let text = whole(&small);
        eprintln!("{path}: {} bytes, {} compressed", text.len(), small.body.len());
        assert!(small.body.len() * 2 < text.len(), "{path}: {} of {}", small.body.len(), text.len());
        match path {
            // The two documents differ in times and in the agent's own figures.
            "/api/v1/overview" => {
                let [plain, small] =
                    [&plain.text(), &text].map(|it| serde_json::from_str::<Value>(it).unwrap());
                assert_eq!(plain["edges"], small["edges"]);
            }
            "/metrics" => {
                let counts = |text: &str| -> BTreeMap<String, String> {
                    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
                    let lines = lines.filter(|(series, _)| series.starts_with("tcptrace_transitions_total"));
                    lines.map(|(series, value)| (series.to_owned(), value.to_owned())).collect()
                };
                assert!(!counts(&text).is_empty());
                assert_eq!(counts(&plain.text()), counts(&text));
            }
            _ => assert_eq!(plain.text(), text, "{path}"),
        }
    }
    // Too short to gain anything.
    assert_eq!(header(&request(&daemon, "/healthz", "gzip"), "content-encoding"), None);
}
