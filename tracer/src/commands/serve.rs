//! `serve`: the daemon, which shows what it counts over HTTP.
//!
//! The thread `trace` reads and counts; this one serves HTTP. All that they share is one copy of the counts,
//! made by the former when the latter asks, so nothing that a client does can hold the tracing up.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tracer_core::lifecycle::{Thresholds, TrackerOptions};

use crate::{
    agent::{
        http::{clients::Clients, listen::Bound, pages::Site, web_config::Web},
        logging::{self, LogLevel},
        metrics::{Agent, LabelLimits, LabelSources, Recorder, RecorderOptions},
        publisher::{MetricsConsumer, channel},
        queue_scan::Listeners,
        systemd,
    },
    cli::{ServeArguments, Shared},
    commands::input::{Input, Privileges},
    event_loop::{EventLoop, Finished},
    sources::live::privileges,
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
        // As a reload finds it, which has no privileges any more: `systemctl reload` asks this first.
        privileges::keep_only(&[]).context("the capabilities could not be given back")?;
        if let Some(path) = &arguments.web_config {
            reread(path)?;
        }
        if !shared.quiet {
            stderr_line!("the configuration is sound");
        }
        return Ok(());
    }
    let level = match arguments.log_level {
        _ if shared.quiet => LogLevel::Error,
        _ if shared.verbose => LogLevel::Debug,
        level => level,
    };
    logging::start(level, arguments.log_format);
    // While the privileges are there, which a port below 1024 takes; and before the kernel is touched.
    let bound = arguments.listen.iter().map(Bound::new).collect::<anyhow::Result<Vec<_>>>()?;
    let listeners =
        if shared.input.is_empty() { Listeners::open(shared.filter.netns) } else { Listeners::default() };
    let mut input = Input::open(shared, Privileges::Dropped)?;
    if let Some(path) = &arguments.web_config
        && let Err(error) = reread(path)
    {
        tracing::warn!("{error:#}");
    }
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
        labels: labels.with_resolver(origin.resolver),
    });
    let (snapshots, publisher) = channel();
    let mut event_loop =
        EventLoop::start(input.source, input.stop, options, MetricsConsumer::new(recorder, publisher))
            .context("the thread that reads events could not be started")?;
    let agent = Agent { mode: input.mode, kernel: kernel_release() };
    let site = Site::new(snapshots, agent, started, listeners);
    let ended = runtime.block_on(serve(shared, arguments, bound, web, site, &mut event_loop));
    systemd::stopping();
    let Finished { summary, abandoned, result } = event_loop.finish();
    tracing::info!("{summary}");
    if let Some(abandoned) = abandoned {
        tracing::info!("{abandoned}");
    }
    // The reason, before what follows from it.
    result.context("the events cannot be read any more")?;
    ended
}

/// Reads the web configuration as a reload will: without the privileges that the start has.
fn reread(path: &Path) -> anyhow::Result<Web> {
    Web::read(path).with_context(|| {
        format!(
            "SIGHUP will not be able to read {} again: let this account read it, its certificate and its key, or \
             give them with LoadCredential= of systemd",
            path.display()
        )
    })
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
    event_loop: &mut EventLoop,
) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("the signal handlers could not be set up")?;
    let web = watch::Sender::new(Arc::new(web));
    let snapshots = site.snapshots();
    let (live, mut over) = (site.is_live(), false);
    let clients = Clients::new(site.router(), web.subscribe());
    for bound in bound {
        let listener = bound.listen().context("a socket could not be given to the HTTP server")?;
        tracing::info!("listening on {}", listener.shown());
        clients.accept_from(listener);
    }
    let duration = async {
        match shared.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(duration);
    let begun = tokio::select! {
        // A recording may have been read to its end by now, and is shown.
        biased;
        true = snapshots.wait_until_attached() => None,
        () = event_loop.ended() => Some(ended_by_itself(live)),
        _ = signals.terminate.recv() => Some(Ok(())),
        _ = signals.interrupt.recv() => Some(Ok(())),
        () = &mut duration => Some(Ok(())),
    };
    if let Some(outcome) = begun {
        clients.end(GRACE).await;
        return outcome;
    }
    systemd::ready(&format!("tracing, {} listeners", arguments.listen.len()));
    let _watchdog = systemd::watchdog(Arc::clone(&snapshots));
    let outcome = loop {
        tokio::select! {
            _ = signals.terminate.recv() => break Ok(()),
            _ = signals.interrupt.recv() => break Ok(()),
            _ = signals.hangup.recv() => reload(arguments, &web),
            () = &mut duration => break Ok(()),
            () = event_loop.ended(), if !over => {
                if live {
                    break ended_by_itself(live);
                }
                // A recording that has been read can still be looked at.
                over = true;
            }
        }
    };
    clients.end(GRACE).await;
    outcome
}

/// What it means that the thread has ended; if it knows why, that comes first.
fn ended_by_itself(live: bool) -> anyhow::Result<()> {
    anyhow::ensure!(
        !live,
        "the tracing has ended by itself; start it again, and report this if it happens again"
    );
    Ok(())
}

/// Reads the web configuration again; a broken one changes nothing.
fn reload(arguments: &ServeArguments, web: &watch::Sender<Arc<Web>>) {
    let Some(path) = &arguments.web_config else {
        tracing::info!("nothing to read again: only the file of --web-config can be, and there is none");
        return;
    };
    match Web::read(path) {
        Ok(new) => {
            web.send_replace(Arc::new(new));
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
