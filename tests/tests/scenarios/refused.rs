//! SYNs that this host refuses, beside the kernel's own trace event.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use tcptrace_tests::{Daemon, Mode, Namespace, ResetWitness, Tracer, sockets, speed, wait};

use crate::support::kernel_is_at_least;

/// Returns how many SYNs were refused, by reason.
fn refused(daemon: &Daemon) -> BTreeMap<String, u64> {
    let page = daemon.page();
    let series = page
        .lines()
        .filter_map(|line| line.strip_prefix("tcptrace_inbound_refused_total{reason=\"")?.split_once("\"} "));
    series.map(|(reason, count)| (reason.to_owned(), count.parse().unwrap())).collect()
}

/// A port scan: every closed port answers with a reset. The metric, the groups and the summary have as many as the witness,
/// with the same reasons.
#[test]
fn a_scan_is_counted_with_the_reasons_of_the_kernel() {
    const FIRST: u16 = 20_000;
    let count: u16 = speed::count(500, 100);
    let namespace = Namespace::alone();
    // No other test has resets of this address.
    let [.., high, low] = namespace.inode().to_be_bytes();
    let address = Ipv4Addr::new(127, 77, high, low);
    let daemon = Daemon::start(&namespace, &[]);
    let groups =
        Tracer::json("handshakes", &namespace, Mode::Btf, &["--role", "server", "--max-groups", "1000"]);
    let witness = match ResetWitness::start(address.into(), 4 * u64::from(count)) {
        Ok(witness) => witness,
        Err(error) => return speed::not_possible(&format!("it has no tracefs for a witness: {error}")),
    };
    namespace.run("scan", || {
        for port in FIRST..FIRST + count {
            let error = sockets::try_connect(SocketAddr::from((address, port))).expect_err("nobody listens");
            assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "{port}");
        }
    });
    // Each client has its answer, so the resets are in the trace.
    let witnessed = witness.end().unwrap();
    // Before 6.10 the kernel reports no reset without a socket, and no reason.
    if kernel_is_at_least(6, 10) {
        assert_eq!(witnessed.count(), u64::from(count), "{witnessed:?}");
        assert!(!witnessed.by_reason.contains_key("unknown"), "{witnessed:?}");
    }
    let least = witnessed.count() - witnessed.under_first_process;
    let seen = wait::until("the refused SYNs", || {
        Some(refused(&daemon)).filter(|seen| seen.values().sum::<u64>() >= least)
    });
    if witnessed.under_first_process == 0 {
        assert_eq!(seen, witnessed.by_reason);
    } else {
        // Some kernels of virtual machines run no BPF program while a thread of process 1 is current.
        let sum = seen.values().sum::<u64>();
        assert!(sum == least || sum == witnessed.count(), "{seen:?} and {witnessed:?}");
        assert!(seen.keys().eq(witnessed.by_reason.keys()), "{seen:?} and {witnessed:?}");
    }

    let sum: u64 = seen.values().sum();
    let output = groups.interrupt();
    let rows: Vec<serde_json::Value> = output.rows();
    let named = rows.iter().filter(|row| {
        row["type"] == "handshake_group"
            && row["group"].as_str().is_some_and(|it| it.ends_with("nobody listens"))
    });
    let counts: Vec<u64> = named.map(|row| row["count"].as_u64().unwrap()).collect();
    assert_eq!((counts.len() as u64, counts.iter().sum()), (sum, sum), "a group for each port");
    assert_eq!(output.counted("SYNs refused because nobody listens").unwrap_or(0), sum);
}
