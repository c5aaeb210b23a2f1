//! Opens real connections over loopback, in a new network namespace that lasts as long as the process.
//!
//! Protocol with the parent process: this process prints a line with the namespace when it is ready. Each
//! line on stdin then starts a step, and each step prints a line when it is done. End of stdin ends the
//! process.

mod namespace;

use std::{
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tcptrace_witness::Witness;

use crate::print;

/// Transitions of one connection that its client closes: five at each end.
const TRANSITIONS: u64 = 10;

/// How many connections the client may be ahead of the server, so that no queue overflows.
const AHEAD: usize = 64;

const PORT: u16 = 5000;

/// Opens and closes connections one after the other.
pub(crate) fn churn(connections: u64, limit: Option<Duration>, pause: Option<Duration>) -> Result<()> {
    let listener = ready()?;
    wait_for_line()?;
    let (opened, to_accept) = mpsc::sync_channel(AHEAD);
    let start = Instant::now();
    let made = thread::scope(|scope| {
        let client = scope.spawn(move || -> Result<u64> {
            let mut made = 0;
            while made < connections && limit.is_none_or(|limit| made % 64 != 0 || start.elapsed() < limit) {
                drop(connect(made)?);
                made += 1;
                if opened.send(()).is_err() {
                    bail!("the server exited before the client");
                }
                if let Some(pause) = pause {
                    thread::sleep(varied(pause, made));
                }
            }
            Ok(made)
        });
        for () in to_accept {
            let (mut server, _) = listener.accept().context("could not accept a connection")?;
            server.read(&mut [0]).context("could not read from a connection")?;
        }
        client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    report(made, start.elapsed())
}

/// Opens connections, and closes them all at the next line on stdin.
pub(crate) fn hold(connections: u64) -> Result<()> {
    let listener = ready()?;
    wait_for_line()?;
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for index in 0..connections {
        clients.push(connect(index)?);
        servers.push(listener.accept().context("could not accept a connection")?.0);
    }
    print(&json!({ "connections": connections }));
    wait_for_line()?;
    let start = Instant::now();
    drop(clients);
    drop(servers);
    report(connections, start.elapsed())
}

/// Counts the transitions of all loads with ftrace, until the next line on stdin.
pub(crate) fn witness(transitions: u64) -> Result<()> {
    let witness = Witness::start(PORT, transitions).context("could not record transitions with ftrace")?;
    print(&json!({ "recording": true }));
    wait_for_line()?;
    let counts = witness.end().context("could not read the transitions that ftrace recorded")?;
    print(&json!({
        "own": counts.own,
        "under_first_process": counts.under_first_process,
        "strangers": counts.strangers,
    }));
    wait_for_line()
}

/// Prints the result when all connections are closed, and waits for the parent process.
fn report(connections: u64, time: Duration) -> Result<()> {
    namespace::wait_until_closed()?;
    print(&json!({
        "connections": connections,
        "transitions": connections * TRANSITIONS,
        "seconds": time.as_secs_f64(),
    }));
    wait_for_line()
}

/// Enters a new namespace, listens there, and prints the namespace's inode.
fn ready() -> Result<TcpListener> {
    let inode = namespace::enter()?;
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let listener = TcpListener::bind(address).context("could not listen in the new network namespace")?;
    print(&json!({ "netns": inode }));
    Ok(listener)
}

/// Waits for a line on stdin, or its end.
fn wait_for_line() -> Result<()> {
    io::stdin().read_line(&mut String::new()).map(drop).context("could not read standard input")
}

/// Connects to one of many addresses of 127/8, because a closed connection can occupy its 4-tuple for a
/// minute.
fn connect(index: u64) -> Result<TcpStream> {
    let [.., third, fourth] = (index % 0x4000).to_be_bytes();
    let address = SocketAddr::from((Ipv4Addr::new(127, 1, third, fourth), PORT));
    TcpStream::connect(address).with_context(|| format!("could not connect to {address}"))
}

/// Returns half to one and a half times the pause, so that nothing synchronizes with it.
fn varied(pause: Duration, index: u64) -> Duration {
    let share = u32::try_from(index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54).unwrap_or(0);
    pause / 2 + pause * share / 1024
}
