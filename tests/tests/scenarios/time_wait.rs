//! Timewait sockets of closed connections, whose end is reported where the fentry hook attaches.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tcptrace_tests::{
    Mode, Namespace, Tracer,
    program::finds,
    sockets::{self, Pair},
    speed,
};

use crate::support::{addresses, assert_time};

/// The kernel's timeout for a closed connection whose peer does not close. The timeout of `TIME_WAIT` is a
/// minute and cannot be changed.
const FIN_TIMEOUT: Duration = Duration::from_secs(2);

/// One transition of the listener, five of the client, and three of the server up to the client's close.
const TRANSITIONS: usize = 1 + 5 + 3;

/// The server does not close, so the client's timewait socket stays in `FIN_WAIT2` until its timeout. Mode
/// `tracepoint` does not have this hook.
#[test]
fn timewait_socket_end_is_reported() {
    if !finds("hook fentry") {
        return speed::not_possible(
            "the hook fentry, which traces the end of timewait sockets, does not attach",
        );
    }
    let namespace = Namespace::new();
    namespace.sysctl("net.ipv4.tcp_fin_timeout", &FIN_TIMEOUT.as_secs().to_string());
    let tracer = Tracer::transitions(&namespace, Mode::Btf);
    let Pair { client, server, listener: _listener } = sockets::pair(&namespace, "127.0.0.1:5000");
    let (client_address, server_address) = addresses(&client, &server);
    let start = Instant::now();
    namespace.run("client", || drop(client));
    sockets::wait_for_end(&server);
    tracer.wait_for_lines(TRANSITIONS + 1);
    let wall = start.elapsed();
    let rows: Vec<Value> = tracer.interrupt().rows();
    drop(server);

    assert_eq!(rows.len(), TRANSITIONS + 1, "{rows:#?}");
    let ended: Vec<&Value> = rows.iter().filter(|row| row["type"] == "time_wait_end").collect();
    let [row] = ended[..] else { panic!("expected one time_wait_end row: {rows:#?}") };
    for (column, value) in [
        ("from", json!("fin_wait_2")),
        ("to", json!("closed")),
        ("network_type", json!("ipv4")),
        ("local_address", json!("127.0.0.1")),
        ("local_port", json!(client_address.port())),
        ("remote_address", json!("127.0.0.1")),
        ("remote_port", json!(server_address.port())),
        ("netns", json!(namespace.inode())),
        // The kernel removes it on a timer, outside any process.
        ("pid", Value::Null),
        ("comm", Value::Null),
    ] {
        assert_eq!(row[column], value, "{column}: {row:#?}");
    }
    let client_port = json!(client_address.port());
    let of_client: Vec<&Value> = rows.iter().filter(|row| row["local_port"] == client_port).collect();
    let ids: HashSet<&str> =
        of_client.iter().map(|row| row["connection_id"].as_str().expect("the client has an id")).collect();
    assert_eq!((of_client.len(), ids.len()), (4 + 1, 1), "{rows:#?}");
    let duration = Duration::from_secs_f64(row["duration_us"].as_f64().unwrap() / 1e6);
    // The kernel starts its timer slightly before the socket's last transition, from which the duration
    // counts.
    let least = FIN_TIMEOUT.saturating_sub(Duration::from_millis(100));
    assert_time("fin_wait_2", duration, least..=wall);
}
