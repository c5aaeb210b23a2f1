//! `serve`: the daemon with metrics over HTTP.
//!
//! The thread `trace` reads and counts events; the main thread serves HTTP. They share only snapshots of the counts,
//! which the tracing thread publishes on request. So no client can delay tracing.

mod flight;

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
use tracer_core::{
    event::Nanos,
    lifecycle::{Thresholds, TrackerOptions},
};

use crate::{
    agent::{
        http::{clients::Clients, listen::Bound, live_page::PageOptions, pages::Site, web_config::Web},
        label_lists,
        listener_scan::ListenerScan,
        logging::{self, LogLevel},
        metrics::{Agent, LabelLimits, Recorder, RecorderOptions},
        overview::OverviewRecorder,
        publisher::{MetricsConsumer, channel},
        systemd,
    },
    cli::{ServeArguments, Shared},
    commands::{
        WrongUsage, error_text,
        input::{Input, Privileges},
    },
    event_loop::EventLoop,
    flight_recorder::{FreezeHandle, WithFlightRecorder},
    host::Visibility,
    report::Palette,
    sources::{
        live::{Hook, privileges},
        observed_drops,
    },
};

/// Longest wait for running requests at shutdown.
const GRACE: Duration = Duration::from_secs(1);

pub(super) fn run(shared: &Shared, arguments: &ServeArguments) -> anyhow::Result<()> {
    let started = SystemTime::now();
    // The configuration is validated before anything else.
    let web = match &arguments.web_config {
        Some(path) => Web::read(path).map_err(WrongUsage::of)?,
        None => Web::default(),
    };
    let labels =
        label_lists::read(&arguments.label.iter().map(|it| (it.0, it.1.clone())).collect::<Vec<_>>())
            .map_err(WrongUsage::of)?;
    if arguments.check {
        // A reload has no privileges any more, so the check has none either.
        privileges::keep_only(&[]).context("the capabilities could not be dropped")?;
        if let Some(path) = &arguments.web_config {
            reread(path).map_err(WrongUsage::of)?;
        }
        flight::files(arguments)?;
        if !shared.quiet {
            stderr_line!("the configuration is valid");
        }
        return Ok(());
    }
    let level = match arguments.log_level {
        _ if shared.quiet => LogLevel::Error,
        _ if shared.verbose => LogLevel::Debug,
        level => level,
    };
    logging::start(level, arguments.log_format, shared.color);
    // Bound before the privileges are dropped, which ports below 1024 require, and before the programs are loaded.
    let bound = arguments.listen.iter().map(Bound::new).collect::<anyhow::Result<Vec<_>>>()?;
    let listener_scan = if shared.input.is_empty() {
        ListenerScan::open(shared.filter.netns)
    } else {
        ListenerScan::default()
    };
    let flight = flight::Flight::prepare(shared, arguments);
    let mut input = Input::open(shared, Privileges::Dropped)?;
    let files = flight::files(arguments)?;
    if let Some(path) = &arguments.web_config
        && let Err(error) = reread(path)
    {
        tracing::warn!("{}", error_text(&error));
    }
    crate::host::release_free_memory();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the thread that serves HTTP could not be started")?;
    // Before the start is announced, because a user may then send a signal.
    let signals = {
        let _guard = runtime.enter();
        Signals::new(flight.as_ref().map(|flight| flight.handle.clone()))
            .context("the signal handlers could not be set up")?
    };
    for line in &input.announcement {
        tracing::info!("{line}");
    }
    let origin = input.source.origin();
    let options = TrackerOptions {
        max_connections: shared.max_connections as usize,
        time_wait: origin.time_wait,
        drops: observed_drops(&origin.host),
        resets: origin.host.has_hook(Hook::ResetSent.name()),
    };
    let freeze = signals.freeze.clone();
    let flight = flight.zip(files);
    let flight =
        flight.map(|(flight, files)| flight.recorder(arguments, thresholds(arguments), files, &origin));
    let flight = flight.transpose().context("the flight recorder could not be started")?;
    let recorder = Recorder::new(RecorderOptions {
        thresholds: thresholds(arguments),
        limits: LabelLimits {
            values: arguments.label_limit,
            expiry: Nanos::from_duration(arguments.label_expiry),
        },
        labels: labels.with_cgroups(Box::new(origin.resolver)),
    });
    let overview = (!arguments.no_page).then(|| OverviewRecorder::new(thresholds(arguments)));
    let (snapshots, publisher) = channel();
    let consumer = MetricsConsumer::new(recorder, overview, publisher);
    let consumer = WithFlightRecorder::new(consumer, flight);
    let mut event_loop = EventLoop::start(input.source, input.stop, options, consumer)
        .context("the thread that reads events could not be started")?;
    // The tracing thread has inherited the priority; this thread returns to its own.
    drop(input.priority);
    let sees = input.visibility.as_ref().map(Visibility::seen).unwrap_or_default();
    let agent = Agent { mode: input.mode, kernel: origin.host.kernel, sees };
    let page = (!arguments.no_page).then(|| PageOptions {
        host: origin.host.name,
        clock: origin.clock,
        names: arguments.page_host.clone(),
        freeze,
    });
    let site = Site::new(snapshots, agent, started, listener_scan, page);
    let ended = runtime.block_on(serve(shared, arguments, bound, web, site, signals, &mut event_loop));
    systemd::stopping();
    let finished = event_loop.finish();
    for line in finished.lines(Palette::default()) {
        tracing::info!("{line}");
    }
    // The tracing error is the cause of the other.
    finished.result.context("the events cannot be read any more")?;
    ended
}

/// Reads the web configuration without privileges, as a reload will.
fn reread(path: &Path) -> anyhow::Result<Web> {
    Web::read(path).with_context(|| {
        format!(
            "SIGHUP will not be able to read {} again: let this user read it, its certificate and its key, or pass \
             them with systemd's LoadCredential=",
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

/// Serves until a signal, `--duration`, or the end of tracing.
async fn serve(
    shared: &Shared,
    arguments: &ServeArguments,
    bound: Vec<Bound>,
    web: Web,
    site: Site,
    mut signals: Signals,
    event_loop: &mut EventLoop,
) -> anyhow::Result<()> {
    let web = watch::Sender::new(Arc::new(web));
    let snapshots = site.snapshots();
    let (live, mut over) = (site.is_live(), false);
    let clients = Clients::new(site.router(), web.subscribe());
    for bound in bound {
        let listener = bound.listen().context("a socket could not be given to the HTTP server")?;
        tracing::info!("listening on {}", listener.address());
        clients.accept_from(listener);
    }
    let duration = async {
        match shared.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(duration);
    let early_end = tokio::select! {
        // First: a recording that has already ended is still served.
        biased;
        true = snapshots.wait_for_first() => None,
        () = event_loop.ended() => Some(unexpected_end(live)),
        _ = signals.terminate.recv() => Some(Ok(())),
        _ = signals.interrupt.recv() => Some(Ok(())),
        () = &mut duration => Some(Ok(())),
    };
    if let Some(outcome) = early_end {
        clients.shut_down(GRACE).await;
        return outcome;
    }
    systemd::ready(&status(arguments));
    let _watchdog = systemd::watchdog(Arc::clone(&snapshots));
    let outcome = loop {
        tokio::select! {
            _ = signals.terminate.recv() => break Ok(()),
            _ = signals.interrupt.recv() => break Ok(()),
            _ = signals.hangup.recv() => reload(arguments, &web),
            _ = signals.user.recv() => flight::on_signal(signals.freeze.as_ref()),
            () = &mut duration => break Ok(()),
            () = event_loop.ended(), if !over => {
                if live {
                    break unexpected_end(live);
                }
                // A recording stays available after its end.
                over = true;
            }
        }
    };
    clients.shut_down(GRACE).await;
    outcome
}

/// Returns an error if the tracing thread ended without a request. Its own error takes precedence.
fn unexpected_end(live: bool) -> anyhow::Result<()> {
    anyhow::ensure!(!live, "tracing ended unexpectedly; restart it, and report a bug if this happens again");
    Ok(())
}

/// Returns the status for systemd.
fn status(arguments: &ServeArguments) -> String {
    format!(
        "tracing, listening on {}",
        arguments.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )
}

/// Reloads the web configuration. An invalid one changes nothing, and the log and the status for systemd say why:
/// `systemctl reload` only sends the signal.
fn reload(arguments: &ServeArguments, web: &watch::Sender<Arc<Web>>) {
    let Some(path) = &arguments.web_config else {
        tracing::info!("nothing to reload: SIGHUP reloads only --web-config, which is not set");
        return;
    };
    match Web::read(path) {
        Ok(new) => {
            web.send_replace(Arc::new(new));
            systemd::status(&status(arguments));
            tracing::info!("{} was read again", path.display());
        }
        Err(error) => {
            let text = format!("the old configuration stays: {error}");
            systemd::status(&format!("{}; {text}", status(arguments)));
            tracing::error!("{text}");
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// SIGUSR1, which writes a file of the flight recorder.
    user: Signal,
    /// The flight recorder; none without `--ring`.
    freeze: Option<FreezeHandle>,
}

impl Signals {
    fn new(freeze: Option<FreezeHandle>) -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
            freeze,
        })
    }
}
