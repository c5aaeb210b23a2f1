//! Real connections over loopback, in a network namespace of their own that ends with the process.
//!
//! The conversation with the program that started this one: a line with the namespace when everything is ready, then
//! a line on standard input for each thing to do, and a line when it is done. The end of the input ends it.

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

use crate::print;

/// The transitions of one connection that its client closes: five at each end.
const TRANSITIONS: u64 = 10;

/// Connections that the client may be ahead of the server, so that no queue overflows.
const AHEAD: usize = 64;

const PORT: u16 = 5000;

/// Opens and closes connections one after the other.
pub(crate) fn churn(connections: u64, limit: Option<Duration>, pause: Option<Duration>) -> Result<()> {
    let listener = ready()?;
    wait_for_order()?;
    let (opened, to_accept) = mpsc::sync_channel(AHEAD);
    let start = Instant::now();
    let made = thread::scope(|scope| {
        let client = scope.spawn(move || -> Result<u64> {
            let mut made = 0;
            while made < connections && limit.is_none_or(|limit| made % 64 != 0 || start.elapsed() < limit) {
                drop(connect(made)?);
                made += 1;
                if opened.send(()).is_err() {
                    bail!("the server has ended before the client");
                }
                if let Some(pause) = pause {
                    thread::sleep(varied(pause, made));
                }
            }
            Ok(made)
        });
        for () in to_accept {
            let (mut server, _) = listener.accept().context("a connection cannot be accepted")?;
            server.read(&mut [0]).context("a connection cannot be read")?;
        }
        client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let time = start.elapsed();
    namespace::wait_for_ends()?;
    print(&json!({
        "connections": made,
        "transitions": made * TRANSITIONS,
        "seconds": time.as_secs_f64(),
    }));
    wait_for_order()
}

/// Opens connections, and when told to closes them all.
pub(crate) fn hold(connections: u64) -> Result<()> {
    let listener = ready()?;
    wait_for_order()?;
    let mut ends = (Vec::new(), Vec::new());
    for index in 0..connections {
        ends.0.push(connect(index)?);
        ends.1.push(listener.accept().context("a connection cannot be accepted")?.0);
    }
    print(&json!({ "connections": connections }));
    wait_for_order()?;
    let start = Instant::now();
    drop(ends.0);
    drop(ends.1);
    let time = start.elapsed();
    namespace::wait_for_ends()?;
    print(&json!({
        "connections": connections,
        "transitions": connections * TRANSITIONS,
        "seconds": time.as_secs_f64(),
    }));
    wait_for_order()
}

/// Moves into a new namespace, listens there, and says so.
fn ready() -> Result<TcpListener> {
    let inode = namespace::enter()?;
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    let listener = TcpListener::bind(address).context("the new network namespace has no free port")?;
    print(&json!({ "netns": inode }));
    Ok(listener)
}

/// Waits for a line, or the end of the input.
fn wait_for_order() -> Result<()> {
    io::stdin().read_line(&mut String::new()).map(drop).context("standard input cannot be read")
}

/// Each closed connection can keep its ends for a minute, so they go to many addresses of 127/8.
fn connect(index: u64) -> Result<TcpStream> {
    let [.., third, fourth] = (index % 0x4000).to_be_bytes();
    let address = SocketAddr::from((Ipv4Addr::new(127, 1, third, fourth), PORT));
    TcpStream::connect(address).with_context(|| format!("there is no connection to {address}"))
}

/// From half to one and a half of the pause, so that nothing falls into step with it.
fn varied(pause: Duration, index: u64) -> Duration {
    let share = u32::try_from(index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54).unwrap_or(0);
    pause / 2 + pause * share / 1024
}
