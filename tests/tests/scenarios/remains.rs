//! What the kernel keeps of a closed connection, and its end, where a hook sees that.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tcptrace_tests::{
    Mode, Namespace, Tracer,
    program::finds,
    sockets::{self, Pair},
    speed,
};

use crate::support::{assert_time, ends};

/// The kernel's time for a closed connection whose peer does not close. That of `TIME_WAIT` is a minute and
/// cannot be set.
const FIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A listener's first, the client's five, and the server's three until its peer has closed.
const TRANSITIONS: usize = 1 + 5 + 3;

/// The server does not close, so that the client's mini-socket stays in `FIN_WAIT2` until its time is up. Mode
/// `tracepoint` has no such hook.
#[test]
fn the_end_of_a_mini_socket_is_seen() {
    if !finds("hook fentry") {
        return speed::not_possible("the hook fentry, which sees the end of a mini-socket, does not attach");
    }
    let namespace = Namespace::new();
    namespace.sysctl("net.ipv4.tcp_fin_timeout", &FIN_TIMEOUT.as_secs().to_string());
    let tracer = Tracer::transitions(&namespace, Mode::Btf);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:5000");
    let (client_end, server_end) = ends(&client, &server);
    let start = Instant::now();
    namespace.run("client", || drop(client));
    sockets::wait_for_end(&server);
    tracer.wait_for_lines(TRANSITIONS + 1);
    let wall = start.elapsed();
    let rows: Vec<Value> = tracer.interrupt().rows();
    drop(server);

    assert_eq!(rows.len(), TRANSITIONS + 1, "{rows:#?}");
    let ended: Vec<&Value> = rows.iter().filter(|row| row["type"] == "time_wait_end").collect();
    let [row] = ended[..] else { panic!("not one end of a mini-socket: {rows:#?}") };
    for (column, value) in [
        ("from", json!("fin_wait_2")),
        ("to", json!("closed")),
        ("network_type", json!("ipv4")),
        ("local_address", json!("127.0.0.1")),
        ("local_port", json!(client_end.port())),
        ("remote_address", json!("127.0.0.1")),
        ("remote_port", json!(server_end.port())),
        ("netns", json!(namespace.inode())),
        // The kernel ends it on a timer: nobody's process.
        ("pid", Value::Null),
        ("comm", Value::Null),
    ] {
        assert_eq!(row[column], value, "{column}: {row:#?}");
    }
    let shown = Duration::from_secs_f64(row["duration_us"].as_f64().unwrap() / 1e6);
    // The kernel sets its timer a moment before the socket's last transition, from which the time counts.
    let least = FIN_TIMEOUT.saturating_sub(Duration::from_millis(100));
    assert_time("fin_wait_2", shown, least..=wall);
}
