//! Measures `serve` during minutes of full load: memory, losses and scrape times.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Bench,
    load::Traffic,
    numbers::Sample,
    page::{Section, Table, Target},
    running::Running,
};

/// Target of the 99th percentile of scrape times.
const SCRAPE_MS: f64 = 50.0;
/// Target of memory growth after the first 20 % of the run. By then all data structures have their final size.
const GROWTH_MB: f64 = 1.0;
/// Time between scrapes, far shorter than in production.
const PAUSE: Duration = Duration::from_millis(250);
/// More connections than the run makes before its time limit.
const MANY: u64 = 100_000_000;
const MB: f64 = 1e6;

/// Measures the daemon under load.
#[expect(clippy::cast_precision_loss, reason = "counts of some minutes")]
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let soak = Duration::from_secs(bench.scale(600, 20));
    let socket = Socket::new(bench);
    let mut command = Command::new(&bench.programs.tracer);
    command.arg("serve").arg("--listen").arg(socket.address()).stdin(Stdio::null()).stdout(Stdio::null());
    let mut running = Running::spawn(&mut command)?;
    running.wait_for("listening on")?;
    let mut traffic = Traffic::churn(&bench.programs, MANY, u64::try_from(soak.as_millis()).ok())?;
    traffic.begin()?;

    let begin = Instant::now();
    let (mut times, mut memory, mut settled) = (Sample::default(), Sample::default(), None);
    let mut page = 0;
    while begin.elapsed() < soak {
        let (milliseconds, bytes) = socket.scrape()?;
        times.push(milliseconds);
        page = page.max(bytes);
        let resident = running.memory("Rss:")? as f64 / MB;
        memory.push(resident);
        if settled.is_none() && begin.elapsed() > soak / 5 {
            settled = Some(resident);
        }
        thread::sleep(PAUSE);
    }
    let at_end = running.memory("Rss:")? as f64 / MB;
    let done = traffic.done()?;
    traffic.end()?;
    let summary = running.summary()?;
    let settled = settled.context("the load ended before the memory was measured")?;

    let mut table = Table::new(&["", ""]);
    for (name, value) in [
        ("duration, s", format!("{:.0}", done.seconds)),
        ("connections per second", format!("{:.0}", done.connections as f64 / done.seconds)),
        ("transitions seen", summary.seen.to_string()),
        ("lost in the ring", summary.lost.to_string()),
        ("skipped by the kernel", summary.skipped.to_string()),
        ("resident memory after 20 % of the run, MB", format!("{settled:.1}")),
        ("resident memory at the end, MB", format!("{at_end:.1}")),
        ("peak resident memory, MB", format!("{:.1}", memory.quantile(1.0))),
        ("scrapes", times.len().to_string()),
        ("scrape time, p50, ms", format!("{:.1}", times.quantile(0.5))),
        ("scrape time, p99, ms", format!("{:.1}", times.quantile(0.99))),
        ("largest page, kB", format!("{:.1}", page as f64 / 1e3)),
    ] {
        table.row([name.to_owned(), value]);
    }
    Ok(Section {
        title: "The daemon",
        text:
            "`serve` under the churn above, without a pause, with four scrapes of `/metrics` per second. All \
               processes share the processors, so a scrape spends most of its time waiting for a processor."
                .to_owned(),
        tables: vec![table],
        targets: vec![
            Target::at_most("transitions lost by the daemon", 0.0, summary.lost as f64, ""),
            Target::at_most(
                "memory growth of the daemon in the last 80 % of the run",
                GROWTH_MB,
                at_end - settled,
                "MB",
            ),
            Target::at_most("scrape time, p99", SCRAPE_MS, times.quantile(0.99), "ms"),
        ],
    })
}

/// The daemon's Unix socket; removed on drop.
struct Socket(PathBuf);

impl Socket {
    fn new(bench: &Bench) -> Self {
        Self(bench.folder.join(format!("bench-{}.sock", std::process::id())))
    }

    fn address(&self) -> String {
        format!("unix:{}", self.0.display())
    }

    /// Fetches the metrics. Returns the duration in milliseconds and the size in bytes.
    fn scrape(&self) -> Result<(f64, usize)> {
        let Self(path) = self;
        let begin = Instant::now();
        let page = fetch(path).with_context(|| format!("{} does not answer", path.display()))?;
        let milliseconds = begin.elapsed().as_secs_f64() * 1e3;
        let head = page.get(..page.len().min(15)).unwrap_or_default();
        ensure!(
            head == b"HTTP/1.1 200 OK",
            "unexpected response from {}: {}",
            path.display(),
            head.escape_ascii()
        );
        Ok((milliseconds, page.len()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The daemon has usually removed it.
        let _ = fs::remove_file(&self.0);
    }
}

fn fetch(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut page = Vec::new();
    stream.read_to_end(&mut page)?;
    Ok(page)
}
