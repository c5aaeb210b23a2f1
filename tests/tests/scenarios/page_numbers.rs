//! The numbers of the live page beside those of `ss`, `connections` and `stuck`, for the same traffic.

use std::{collections::BTreeMap, process::Command};

use serde_json::{Value, json};
use tcptrace_tests::{
    Daemon, Mode, Namespace, StuckGroup, Tracer,
    process::own_name,
    sockets::{self, Pair},
    wait,
};

use crate::support::ss;

/// Connections that both ends close, that the server leaves in CLOSE_WAIT, and that nobody accepts.
const CLOSED: u32 = 10;
const LEAKED: u32 = 5;
const UNACCEPTED: u32 = 3;

fn overview(daemon: &Daemon, query: &str) -> Value {
    let response = daemon.get(&format!("/api/v1/overview{query}")).unwrap();
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_str(response.text().as_str()).unwrap()
}

/// Sums a number over the items of a list that a condition selects.
fn sum(list: &Value, number: &str, is_counted: impl Fn(&Value) -> bool) -> u32 {
    let numbers = list.as_array().unwrap().iter().filter(|it| is_counted(it)).map(|it| it[number].as_u64());
    u32::try_from(numbers.map(Option::unwrap).sum::<u64>()).unwrap()
}

/// The accept queue and its limit, by listening port.
type Queues = BTreeMap<u64, (u64, u64)>;

/// Returns the queues on the page.
fn queues(document: &Value) -> Queues {
    let queue = |it: &Value| Some((it["port"].as_u64()?, (it["queue"].as_u64()?, it["limit"].as_u64()?)));
    // A port without a listener has no queue.
    document["listeners"].as_array().unwrap().iter().filter_map(queue).collect()
}

/// Returns the queues by `ss`.
fn queues_by_ss(namespace: &Namespace) -> Queues {
    let output = namespace.run("ss", || Command::new("ss").args(["-ltnH"]).output().unwrap());
    let text = String::from_utf8(output.stdout).unwrap();
    let queue = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let port = columns[3].rsplit_once(':')?.1.parse().ok()?;
        Some((port, (columns[1].parse().ok()?, columns[2].parse().ok()?)))
    };
    text.lines().map(|line| queue(line).unwrap_or_else(|| panic!("{line}"))).collect()
}

#[test]
fn page_agrees_with_ss_and_the_other_commands() {
    let namespace = Namespace::new();
    let _inhabitant = namespace.inhabit();
    let daemon = Daemon::start(&namespace, &["--threshold", "close_wait=1ms"]);
    let connections = Tracer::connections(&namespace, Mode::Btf);
    for _ in 0..CLOSED {
        let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:0");
        drop(client);
        sockets::wait_for_end(&server);
    }
    let leaked: Vec<_> = (0..LEAKED)
        .map(|_| {
            let Pair { client, server, listener } = sockets::pair(&namespace, "127.0.0.1:0");
            drop(client);
            sockets::wait_for_end(&server);
            (server, listener)
        })
        .collect();
    let held: Vec<Pair> = (0..4).map(|_| sockets::pair(&namespace, "127.0.0.1:0")).collect();
    let full = namespace.run("server", || sockets::listen_with("127.0.0.1:0", 4, |_| {}));
    let waiting: Vec<_> = (0..UNACCEPTED)
        .map(|_| namespace.run("client", || sockets::connect(sockets::local(&full))))
        .collect();
    daemon.wait_for(r#"tcptrace_transitions_total{from="last_ack",to="closed"}"#, CLOSED.into());
    daemon.wait_for(r#"tcptrace_transitions_total{from="fin_wait_2",to="closed"}"#, (CLOSED + LEAKED).into());
    let established = 8 + 2 * UNACCEPTED;
    daemon.wait_for(r#"tcptrace_connections{state="established"}"#, established.into());
    daemon.wait_for(r#"tcptrace_stuck_connections{state="close_wait"}"#, LEAKED.into());

    // The listeners are dumped once a second.
    let document = wait::until("the same accept queues", || {
        Some(overview(&daemon, "")).filter(|document| queues(document) == queues_by_ss(&namespace))
    });
    let in_state = |name: &str| sum(&document["states"], "connections", |state| state["state"] == name);
    // `ss` and the page name some states differently.
    for (name, of_ss) in
        [("established", "established"), ("close_wait", "close-wait"), ("listen", "listening")]
    {
        assert_eq!(in_state(name), ss(&namespace, of_ss), "{name}");
    }
    assert_eq!(in_state("established"), established);
    // The kernel does not report when a timewait socket changes from FIN_WAIT2 to TIME_WAIT.
    assert_eq!(
        in_state("time_wait") + in_state("fin_wait_2"),
        ss(&namespace, "time-wait") + ss(&namespace, "fin-wait-2")
    );
    let open = ss(&namespace, "established") + ss(&namespace, "close-wait");
    for (list, name) in [("remotes", "127.0.0.1".to_owned()), ("processes", own_name())] {
        assert_eq!(sum(&document[list], "connections", |it| it["name"] == *name), open, "{list}: {document}");
    }

    // Each listening port with its queue, its limit and its process.
    let port = sockets::port(&full);
    assert_eq!(queues(&document)[&port.into()], (UNACCEPTED.into(), 4));
    for query in [format!("?port={port}"), format!("?process={}", own_name())] {
        let filtered = overview(&daemon, &query);
        let listeners = filtered["listeners"].as_array().unwrap();
        let listener = listeners.iter().find(|it| it["port"] == port).unwrap_or_else(|| panic!("{filtered}"));
        assert_eq!(listener["processes"], json!([own_name()]), "{query}");
    }
    assert_eq!(overview(&daemon, "?process=nobody")["listeners"], json!([]));

    // The commands.
    let netns = namespace.inode().to_string();
    let arguments = ["stuck", "-o", "json", "--netns", &netns, "--state", "close_wait"];
    let stuck = Tracer::start_unready(arguments.iter().chain(&["--threshold", "close_wait=1ms"]));
    let stuck = stuck.wait_for_exit();
    assert_eq!(stuck.status.code(), Some(0), "{}", stuck.stderr);
    let rows = stuck.rows::<Value>();
    let groups: Vec<StuckGroup> = rows
        .into_iter()
        .filter(|row| row["type"] == "stuck_group")
        .map(|row| serde_json::from_value(row).unwrap())
        .collect();
    let by_command: usize = groups.iter().map(|group| group.count).sum();
    assert_eq!(document["stuck"]["count"], by_command);
    assert_eq!(by_command, LEAKED as usize);

    let closed = sum(&document["edges"], "total", |edge| edge["to"] == "closed" && edge["from"] != "listen");
    assert_eq!(closed, 2 * CLOSED + LEAKED);
    let rows = connections.finish(2 * CLOSED as usize + LEAKED as usize);
    assert_eq!(rows.iter().filter(|row| row.role == "client").count(), (CLOSED + LEAKED) as usize);
    drop((leaked, held, waiting, full));
}

/// Who opened a connection from before the start is not known, but who listens is.
#[test]
fn connections_from_before_the_start_count_at_the_port_of_their_service() {
    let namespace = Namespace::new();
    let _inhabitant = namespace.inhabit();
    let before: Vec<Pair> = (0..3).map(|_| sockets::pair(&namespace, "127.0.0.1:0")).collect();
    let daemon = Daemon::start(&namespace, &[]);
    let mut services: Vec<_> =
        before.iter().map(|pair| (sockets::local(&pair.server).port().to_string(), 2)).collect();
    services.sort_unstable();
    let ports = wait::until("a scan of the connections", || {
        Some(overview(&daemon, "")["ports"].clone()).filter(Value::is_array)
    });
    let ends: Vec<_> = before
        .iter()
        .flat_map(|pair| [&pair.client, &pair.server].map(|socket| sockets::local(socket).port().to_string()))
        .collect();
    let ports = ports.as_array().unwrap().iter();
    let mut counted: Vec<_> = ports
        .map(|it| (it["name"].as_str().unwrap().to_owned(), it["connections"].as_u64().unwrap()))
        .filter(|(name, _)| ends.contains(name))
        .collect();
    counted.sort_unstable();
    assert_eq!(counted, services);
}
