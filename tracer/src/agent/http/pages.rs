//! The pages and their routes.

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
    http::{
        auth::Admission,
        gzip::{self, Encoding},
        live_page::{self, PageOptions, PageState},
        web_config::Web,
    },
    listener_scan::ListenerScan,
    metrics::{Agent, Figures, PageFormat, render},
    process_figures,
    publisher::{Counts, SnapshotHandle},
};

const INDEX: &str = include_str!("index.html");

/// Most metrics pages in memory at once; slow clients keep them alive.
const MAX_PAGES: usize = 8;
/// How long a page is shared with other clients at that limit.
const SHARE_FOR: Duration = Duration::from_secs(2);

/// The data behind the pages.
#[derive(Clone)]
pub(crate) struct Site(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) snapshots: Arc<SnapshotHandle>,
    pub(super) agent: Agent,
    started: SystemTime,
    listener_scan: ListenerScan,
    /// None without the live page.
    pub(super) page: Option<PageState>,
    /// The pages being sent. At the limit, further clients share a recent page.
    pages: Mutex<Vec<Sent>>,
}

/// A page being sent, for as long as a response holds it.
struct Sent {
    format: PageFormat,
    encoding: Encoding,
    made_at: Instant,
    page: Weak<Page>,
}

/// A rendered page, shared by all responses that send it.
struct Page(Vec<u8>);

/// A response's reference to a page.
struct PageRef(Arc<Page>);

impl AsRef<[u8]> for PageRef {
    fn as_ref(&self) -> &[u8] {
        &self.0.0
    }
}

impl Site {
    pub(crate) fn new(
        snapshots: Arc<SnapshotHandle>,
        agent: Agent,
        started: SystemTime,
        listener_scan: ListenerScan,
        page: Option<PageOptions>,
    ) -> Self {
        let page = page.map(PageState::new);
        Self(Arc::new(Inner { snapshots, agent, started, listener_scan, page, pages: Mutex::default() }))
    }

    pub(crate) fn snapshots(&self) -> Arc<SnapshotHandle> {
        Arc::clone(&self.0.snapshots)
    }

    /// Returns whether the source is a live kernel, rather than a recording.
    pub(crate) fn is_live(&self) -> bool {
        self.0.agent.mode.is_some()
    }

    pub(crate) fn router(&self) -> Router {
        let page = match &self.0.page {
            Some(_) => live_page::router(self),
            None => Router::new().route("/", get(async || Html(INDEX))),
        };
        page.route("/metrics", get(metrics))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .with_state(self.clone())
    }

    /// Reads the values that are not counted.
    pub(super) async fn figures(&self, counts: &Counts) -> Figures {
        let (listener_scan, live) = (self.0.listener_scan.clone(), self.is_live());
        // The dump may block.
        let listeners = tokio::task::spawn_blocking(move || live.then(|| listener_scan.figures())).await;
        Figures {
            process: process_figures::read(self.0.started),
            listeners: listeners.ok().flatten().unwrap_or_default(),
            counts_age: live.then(|| counts.made_at.elapsed()),
        }
    }

    /// Renders a page and compresses it if asked, one at a time. At the limit of pages, returns a recent one of the same
    /// format and encoding.
    async fn page(&self, format: PageFormat, encoding: Encoding) -> Result<Arc<Page>, String> {
        let mut pages = self.0.pages.lock().await;
        pages.retain(|sent| sent.page.strong_count() > 0);
        if pages.len() >= MAX_PAGES {
            let recent = pages.iter().rev().find(|sent| {
                (sent.format, sent.encoding) == (format, encoding) && sent.made_at.elapsed() < SHARE_FOR
            });
            return recent
                .and_then(|sent| sent.page.upgrade())
                .ok_or_else(|| "too many clients are reading slowly: try again in some seconds".to_owned());
        }
        let counts = self.0.snapshots.counts().await.ok_or("tracing has not started yet")?;
        let figures = self.figures(&counts).await;
        let page =
            render(counts.snapshot, &self.0.agent, figures, format).map_err(|error| error.to_string())?;
        let page = match encoding {
            Encoding::Identity => page,
            Encoding::Gzip => gzip::compressed(page)
                .await
                .map_err(|error| format!("the page could not be compressed: {error}"))?,
        };
        let page = Arc::new(Page(page));
        pages.push(Sent { format, encoding, made_at: Instant::now(), page: Arc::downgrade(&page) });
        Ok(page)
    }
}

async fn metrics(State(site): State<Site>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let (format, encoding) = (PageFormat::negotiate(accept), Encoding::negotiate(&headers));
    match site.page(format, encoding).await {
        Ok(page) => {
            let body = Body::from(Bytes::from_owner(PageRef(page)));
            let head =
                [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "accept, accept-encoding")];
            let mut response = (head, body).into_response();
            if encoding == Encoding::Gzip {
                gzip::mark_compressed(response.headers_mut());
            }
            response
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(site): State<Site>) -> (StatusCode, String) {
    match site.0.snapshots.time_since_read() {
        None => (StatusCode::SERVICE_UNAVAILABLE, "tracing has not started yet\n".to_owned()),
        Some(_) if site.0.snapshots.has_ended() => {
            (StatusCode::OK, "the recording has been read\n".to_owned())
        }
        Some(_) if site.0.snapshots.is_alive() => (StatusCode::OK, "ready\n".to_owned()),
        Some(elapsed) => {
            let text = format!("no events have been read for {} s\n", elapsed.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

/// Adds authentication to the pages. Each request uses the current web configuration.
pub(crate) fn guarded(router: Router, web: watch::Receiver<Arc<Web>>) -> Router {
    router.layer(middleware::from_fn_with_state(web, guard))
}

async fn guard(State(web): State<watch::Receiver<Arc<Web>>>, request: Request, next: Next) -> Response {
    let web = Arc::clone(&web.borrow());
    let Some(users) = &web.users else { return next.run(request).await };
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match users.authenticate(header).await {
        Admission::Granted => next.run(request).await,
        Admission::Denied => {
            let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"tcptrace-bpf\", charset=\"UTF-8\"")];
            (StatusCode::UNAUTHORIZED, challenge, "a user name and a password are required\n").into_response()
        }
        Admission::Busy => {
            let text = "too many password checks are pending: try again in some seconds\n";
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
        sources::Coverage,
    };

    #[tokio::test]
    async fn before_tracing_starts_pages_are_unavailable() {
        let (snapshots, _publisher) = channel();
        let agent = Agent { mode: None, kernel: String::new(), sees: Vec::new() };
        let site = Site::new(snapshots, agent, SystemTime::now(), ListenerScan::default(), None);
        assert_eq!(ready(State(site.clone())).await.0, StatusCode::SERVICE_UNAVAILABLE);
        let response = metrics(State(site), HeaderMap::new()).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn a_page_is_shared_at_the_limit_only_while_it_is_recent() {
        let (snapshots, publisher) = channel();
        let mut consumer = MetricsConsumer::new(Recorder::new(RecorderOptions::default()), None, publisher);
        let tracker = Tracker::new(TrackerOptions::default());
        let source = SourceCounts::default();
        let coverage = Coverage::default();
        let progress = Progress { tracker: &tracker, source, coverage, run_time: None, now: Timestamp(1) };
        // After the end of the input, snapshots are available at once.
        consumer.finish(progress).unwrap();
        let agent = Agent { mode: None, kernel: String::new(), sees: Vec::new() };
        let site = Site::new(snapshots, agent, SystemTime::now(), ListenerScan::default(), None);
        let mut held = Vec::new();
        for _ in 0..MAX_PAGES {
            held.push(site.page(PageFormat::Text, Encoding::Identity).await.ok().unwrap());
        }
        let shared = site.page(PageFormat::Text, Encoding::Identity).await.ok().unwrap();
        assert!(Arc::ptr_eq(&shared, &held[MAX_PAGES - 1]));
        assert!(
            site.page(PageFormat::Protobuf, Encoding::Identity).await.is_err(),
            "none of them is protobuf"
        );
        assert!(site.page(PageFormat::Text, Encoding::Gzip).await.is_err(), "none of them is compressed");
        drop(shared);
        for sent in site.0.pages.lock().await.iter_mut() {
            sent.made_at = sent.made_at.checked_sub(SHARE_FOR).unwrap();
        }
        let error = site.page(PageFormat::Text, Encoding::Identity).await.err().unwrap();
        assert!(error.contains("too many clients are reading"), "{error}");
        held.pop();
        let new = site.page(PageFormat::Text, Encoding::Identity).await.ok().unwrap();
        assert!(held.iter().all(|old| !Arc::ptr_eq(old, &new)));
    }
}
