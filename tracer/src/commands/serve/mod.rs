//! `serve`: the daemon, which shows what it counts over HTTP.
//!
//! The thread `trace` reads and counts; this one serves HTTP. All that they share is one copy of the counts,
//! made by the former when the latter asks, so nothing that a client does can hold the tracing up.

mod auth;
mod clients;
mod feed;
mod listen;
mod logging;
mod pages;
mod patience;
mod systemd;
mod web_config;

use std::{
    sync::{Arc, RwLock},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{clients::Clients, feed::Counting, listen::Bound, pages::Site, web_config::Web};
use super::{
    input::{Input, Privileges},
    pump::{Outcome, Pump},
};
use crate::{
    cli::{ServeArguments, Shared},
    lifecycle::{Thresholds, TrackerOptions},
    metrics::{Agent, LabelLimits, LabelSources, Recorder, RecorderOptions},
};

/// How long running requests may go on when it ends.
const GRACE: Duration = Duration::from_secs(1);

pub(super) fn run(shared: &Shared, arguments: &ServeArguments) -> anyhow::Result<()> {
    let started = SystemTime::now();
    // Everything that can be wrong with the configuration, before anything is touched.
    let web = match &arguments.web_config {
        Some(path) => Web::read(path)?,
        None => Web::default(),
    };
    let labels =
        LabelSources::new(&arguments.label.iter().map(|it| (it.0, it.1.clone())).collect::<Vec<_>>())?;
    if arguments.check {
        if !shared.quiet {
            tell!("the configuration is sound");
        }
        return Ok(());
    }
    logging::start(shared, arguments);
    // While the privileges are there, which a port below 1024 takes; and before the kernel is touched.
    let bound = arguments.listen.iter().map(Bound::new).collect::<anyhow::Result<Vec<_>>>()?;
    let mut input = Input::open(shared, Privileges::Dropped)?;
    give_memory_back();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the thread that serves HTTP could not be started")?;
    for line in &input.announcement {
        tracing::info!("{line}");
    }
    let origin = input.source.origin();
    let options =
        TrackerOptions { max_connections: shared.max_connections as usize, time_wait: origin.time_wait };
    let recorder = Recorder::new(RecorderOptions {
        thresholds: thresholds(arguments),
        limits: LabelLimits {
            values: arguments.label_limit,
            expiry_ns: u64::try_from(arguments.label_expiry.as_nanos()).unwrap_or(u64::MAX),
        },
        labels: labels.with_attribution(origin.attribution),
    });
    let (feed, publisher) = feed::channel();
    let mut pump = Pump::start(input.source, input.stop, options, Counting::new(recorder, publisher))
        .context("the thread that reads events could not be started")?;
    let agent = Agent { mode: input.mode, kernel: kernel_release() };
    let ended =
        runtime.block_on(serve(shared, arguments, bound, web, Site::new(feed, agent, started), &mut pump));
    systemd::stopping();
    let Outcome { summary, abandoned, result } = pump.finish();
    tracing::info!("{summary}");
    if let Some(abandoned) = abandoned {
        tracing::info!("{abandoned}");
    }
    ended?;
    result.context("the events cannot be read any more")
}

fn thresholds(arguments: &ServeArguments) -> Thresholds {
    let mut thresholds = Thresholds::default();
    for (state, limit) in &arguments.threshold {
        thresholds.set(*state, *limit);
    }
    thresholds
}

/// Serves until a signal, `--duration`, or the end of the tracing.
async fn serve(
    shared: &Shared,
    arguments: &ServeArguments,
    bound: Vec<Bound>,
    web: Web,
    site: Site,
    pump: &mut Pump,
) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("the signal handlers could not be set up")?;
    let web = Arc::new(RwLock::new(Arc::new(web)));
    let feed = site.feed();
    let (live, mut over) = (site.is_live(), false);
    let clients = Clients::new(site.router(), Arc::clone(&web));
    for bound in bound {
        let listener = bound.listen().context("a socket could not be given to the HTTP server")?;
        tracing::info!("listening on {}", listener.shown());
        clients.accept_from(listener);
    }
    feed.wait_until_attached().await;
    systemd::ready(&format!("tracing, {} listeners", arguments.listen.len()));
    let _watchdog = systemd::watchdog(Arc::clone(&feed));
    let duration = async {
        match shared.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(duration);
    let outcome = loop {
        tokio::select! {
            _ = signals.terminate.recv() => break Ok(()),
            _ = signals.interrupt.recv() => break Ok(()),
            _ = signals.hangup.recv() => reload(arguments, &web),
            () = &mut duration => break Ok(()),
            () = pump.ended(), if !over => {
                if live {
                    break Err(anyhow::anyhow!("the tracing has ended by itself"));
                }
                // A recording that has been read can still be looked at.
                over = true;
            }
        }
    };
    clients.end(GRACE).await;
    outcome
}

/// Reads the web configuration again; a broken one changes nothing.
fn reload(arguments: &ServeArguments, web: &RwLock<Arc<Web>>) {
    let Some(path) = &arguments.web_config else {
        tracing::info!("nothing to read again: only the file of --web-config can be, and there is none");
        return;
    };
    match Web::read(path) {
        Ok(new) => {
            *web.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(new);
            tracing::info!("{} was read again", path.display());
        }
        Err(error) => tracing::error!("the old configuration stays: {error}"),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// Reading the kernel's types takes some megabytes once, which the allocator would keep for good.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it has no conditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |release| release.trim().to_owned())
}
