//! Enters a new network namespace.

use std::{
    fs,
    os::linux::fs::MetadataExt as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::thread::UnshareFlags;

/// Limit for closing the last connections.
const LIMIT: Duration = Duration::from_secs(20);

/// Moves this thread, and threads that it starts, into a new namespace with `lo` up. Returns the namespace's
/// inode.
pub(super) fn enter() -> Result<u64> {
    // SAFETY: only the network namespace of this thread changes, which neither memory nor descriptors depend on.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .context("could not create a network namespace: run this as root")?;
    let status = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()
        .context("could not start `ip`: install iproute2")?;
    ensure!(status.success(), "`ip link set lo up` failed with {status}");
    for (name, value) in [
        // Limits timewait sockets, so that the load stays constant over time.
        ("tcp_max_tw_buckets", "4096"),
        ("ip_local_port_range", "1024 65535"),
    ] {
        let path = format!("/proc/sys/net/ipv4/{name}");
        fs::write(&path, value)
            .with_context(|| format!("could not set {path} in a new network namespace"))?;
    }
    let file = fs::metadata("/proc/thread-self/ns/net").context("could not read /proc/thread-self/ns/net")?;
    Ok(file.st_ino())
}

/// Waits until all connections are closed or in TIME_WAIT, so every transition has happened.
pub(super) fn wait_until_closed() -> Result<()> {
    let end = Instant::now() + LIMIT;
    loop {
        let path = "/proc/thread-self/net/tcp";
        let text = fs::read_to_string(path).with_context(|| format!("could not read {path}"))?;
        // The fourth column is the state: 06 is TIME_WAIT, 0A is LISTEN.
        let states = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(3));
        if states.filter(|state| !["06", "0A"].contains(state)).count() == 0 {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("connections in {path} did not close within {} s", LIMIT.as_secs());
        }
        thread::sleep(Duration::from_millis(5));
    }
}
