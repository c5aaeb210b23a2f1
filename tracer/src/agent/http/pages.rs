//! What is shown under which path.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use tokio::sync::{Mutex, watch};

use crate::agent::{
    http::{auth::Admission, web_config::Web},
    metrics::{Agent, Figures, Format, ProcessFigures, render},
    publisher::SnapshotHandle,
    queue_scan::Listeners,
};

const INDEX: &str = include_str!("index.html");

/// Most pages that are kept for clients who take their time.
const MOST_PAGES: usize = 8;
/// How long a page may be given to others when there are too many.
const SHARED: Duration = Duration::from_secs(2);

/// What the pages are made of.
#[derive(Clone)]
pub(crate) struct Site(Arc<Inner>);

struct Inner {
    snapshots: Arc<SnapshotHandle>,
    agent: Agent,
    started: SystemTime,
    listeners: Listeners,
    /// The pages that are being sent. When there are too many, a client gets one of those while it is new.
    pages: Mutex<Vec<Sent>>,
}

/// A page that is being sent, as long as somebody holds it.
struct Sent {
    format: Format,
    made: Instant,
    page: Weak<Page>,
}

/// A page that is being sent to one client or several.
struct Page(Vec<u8>);

/// One client's hold on a page.
struct Hold(Arc<Page>);

impl AsRef<[u8]> for Hold {
    fn as_ref(&self) -> &[u8] {
        &self.0.0
    }
}

impl Site {
    pub(crate) fn new(
        snapshots: Arc<SnapshotHandle>,
        agent: Agent,
        started: SystemTime,
        listeners: Listeners,
    ) -> Self {
        Self(Arc::new(Inner { snapshots, agent, started, listeners, pages: Mutex::default() }))
    }

    pub(crate) fn snapshots(&self) -> Arc<SnapshotHandle> {
        Arc::clone(&self.0.snapshots)
    }

    /// Whether a kernel is traced, rather than a recording read.
    pub(crate) fn is_live(&self) -> bool {
        self.0.agent.mode.is_some()
    }

    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/", get(async || Html(INDEX)))
            .route("/metrics", get(metrics))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .with_state(self.clone())
    }

    /// The page of now, or in need one that others have not yet taken and that was made a moment ago.
    async fn page(&self, format: Format) -> Result<Arc<Page>, String> {
        let mut pages = self.0.pages.lock().await;
        pages.retain(|sent| sent.page.strong_count() > 0);
        if pages.len() >= MOST_PAGES {
            let new = pages.iter().rev().find(|sent| sent.format == format && sent.made.elapsed() < SHARED);
            return new.and_then(|sent| sent.page.upgrade()).ok_or_else(|| {
                "too many clients are reading, each of them slowly: try again in some seconds".to_owned()
            });
        }
        let counts = self.0.snapshots.counts().await.ok_or("tracing has not begun yet")?;
        let (listeners, live) = (self.0.listeners.clone(), self.is_live());
        // The kernel is asked, and may let one wait.
        let queues = tokio::task::spawn_blocking(move || live.then(|| listeners.queues())).await;
        let figures = Figures {
            process: ProcessFigures::read(self.0.started),
            queues: queues.ok().flatten().unwrap_or_default(),
            counts_age: live.then(|| counts.made.elapsed()),
        };
        let page =
            render(counts.snapshot, &self.0.agent, figures, format).map_err(|error| error.to_string())?;
        let page = Arc::new(Page(page));
        pages.push(Sent { format, made: Instant::now(), page: Arc::downgrade(&page) });
        Ok(page)
    }
}

async fn metrics(State(site): State<Site>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::negotiate(accept);
    match site.page(format).await {
        Ok(page) => {
            let body = Body::from(Bytes::from_owner(Hold(page)));
            ([(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept")], body).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(site): State<Site>) -> (StatusCode, String) {
    match site.0.snapshots.silence() {
        None => (StatusCode::SERVICE_UNAVAILABLE, "tracing has not begun yet\n".to_owned()),
        Some(_) if site.0.snapshots.has_ended() => {
            (StatusCode::OK, "the recording has been read\n".to_owned())
        }
        Some(_) if site.0.snapshots.is_alive() => (StatusCode::OK, "ready\n".to_owned()),
        Some(silence) => {
            let text = format!("no events have been read for {} s\n", silence.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

/// The same pages for those who may look, by what holds at the time of each request.
pub(crate) fn guarded(router: Router, web: watch::Receiver<Arc<Web>>) -> Router {
    router.layer(middleware::from_fn_with_state(web, guard))
}

async fn guard(State(web): State<watch::Receiver<Arc<Web>>>, request: Request, next: Next) -> Response {
    let web = Arc::clone(&web.borrow());
    let Some(users) = &web.users else { return next.run(request).await };
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match users.admits(header).await {
        Admission::Granted => next.run(request).await,
        Admission::Denied => {
            let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"tcptrace-bpf\", charset=\"UTF-8\"")];
            (StatusCode::UNAUTHORIZED, challenge, "a name and a password are needed\n").into_response()
        }
        Admission::Busy => {
            let text = "too many passwords are being checked: try again in some seconds\n";
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use tracer_core::{
        event::{SourceCounts, Timestamp},
        lifecycle::{Tracker, TrackerOptions},
    };

    use super::*;
    use crate::{
        agent::{
            metrics::{Recorder, RecorderOptions},
            publisher::{MetricsConsumer, channel},
        },
        event_loop::{Consumer as _, Progress},
    };

    #[tokio::test]
    async fn before_the_tracing_there_is_nothing_to_show() {
        let (snapshots, _publisher) = channel();
        let agent = Agent { mode: None, kernel: String::new() };
        let site = Site::new(snapshots, agent, SystemTime::now(), Listeners::default());
        assert_eq!(ready(State(site.clone())).await.0, StatusCode::SERVICE_UNAVAILABLE);
        let answer = metrics(State(site), HeaderMap::new()).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn a_page_that_is_held_is_given_to_others_only_while_it_is_new() {
        let (snapshots, publisher) = channel();
        let mut counting = MetricsConsumer::new(Recorder::new(RecorderOptions::default()), publisher);
        let tracker = Tracker::new(TrackerOptions::default());
        let source = SourceCounts::default();
        let progress = Progress { tracker: &tracker, source, run_time_ns: None, now: Timestamp(1) };
        // At its end a question is answered at once.
        counting.finish(progress).unwrap();
        let agent = Agent { mode: None, kernel: String::new() };
        let site = Site::new(snapshots, agent, SystemTime::now(), Listeners::default());
        let mut held = Vec::new();
        for _ in 0..MOST_PAGES {
            held.push(site.page(Format::Text).await.ok().unwrap());
        }
        let shared = site.page(Format::Text).await.ok().unwrap();
        assert!(Arc::ptr_eq(&shared, &held[MOST_PAGES - 1]));
        assert!(site.page(Format::Protobuf).await.is_err(), "none of them is protobuf");
        drop(shared);
        for sent in site.0.pages.lock().await.iter_mut() {
            sent.made = sent.made.checked_sub(SHARED).unwrap();
        }
        let error = site.page(Format::Text).await.err().unwrap();
        assert!(error.contains("too many clients are reading"), "{error}");
        held.pop();
        let new = site.page(Format::Text).await.ok().unwrap();
        assert!(held.iter().all(|old| !Arc::ptr_eq(old, &new)));
    }
}
