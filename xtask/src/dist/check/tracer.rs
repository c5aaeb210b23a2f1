//! Runs the program elsewhere and lets it trace a connection of this process.

use std::{
    io::{BufRead as _, BufReader, Read},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::root::Root;

/// Limit of every wait; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);

/// Checks that a program, copied into a root, traces a connection of the host.
pub(super) fn traces_in(root: &Root, program: &Path) -> Result<()> {
    root.copy_in(program, "/tcptrace-bpf")?;
    traces(root.command("/tcptrace-bpf").args(["connections", "-o", "json"]))
}

/// Checks that a command, which prints connections as JSON, prints one that this process opens, and ends successfully
/// upon SIGTERM.
pub(super) fn traces(command: &mut Command) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("could not start the program")?;
    let result = traced(&mut child);
    // Ends the program after an error.
    let _ = child.kill();
    child.wait()?;
    result
}

fn traced(child: &mut Child) -> Result<()> {
    let stdout = lines(child.stdout.take().context("stdout is piped")?);
    let stderr = lines(child.stderr.take().context("stderr is piped")?);
    let mut log = String::new();
    while !log.contains("tracing TCP") {
        match stderr.recv_timeout(LIMIT) {
            Ok(line) => {
                log += &line;
                log.push('\n');
            }
            Err(_) => bail!("the program did not start tracing; it wrote: {log}"),
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let client = TcpStream::connect(listener.local_addr()?)?;
    let client_port = client.local_addr()?.port();
    drop(listener.accept()?);
    drop(client);
    let end = Instant::now() + LIMIT;
    loop {
        let line = stdout
            .recv_timeout(end.saturating_duration_since(Instant::now()))
            .with_context(|| format!("no row from port {client_port} to {port}; it wrote: {log}"))?;
        let row: Value = serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
        if row["local_port"] == client_port && row["remote_port"] == port {
            ensure!(row["role"] == "client" && row["handshake_us"].is_number(), "an incomplete row: {line}");
            break;
        }
    }
    kill_process(Pid::from_child(child), Signal::TERM)?;
    let end = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        ensure!(Instant::now() < end, "the program did not end within {} s of SIGTERM", LIMIT.as_secs());
        thread::sleep(Duration::from_millis(20));
    };
    ensure!(status.success(), "the program ended with {status}; it wrote: {log}");
    Ok(())
}

/// Reads lines on a separate thread, so that waits can have a limit.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
