//! What is shown under which path.

use std::{
    sync::{Arc, Weak},
    time::SystemTime,
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
use tokio::sync::Mutex;

use super::{feed::Feed, web_config::Web};
use crate::metrics::{Agent, Format, ProcessFigures, render};

const INDEX: &str = include_str!("index.html");

/// Most pages that are kept for clients who take their time.
const MOST_PAGES: usize = 8;

/// What the pages are made of.
#[derive(Clone)]
pub(super) struct Site(Arc<Inner>);

struct Inner {
    feed: Arc<Feed>,
    agent: Agent,
    started: SystemTime,
    /// The pages that are being sent. When there are too many, a client gets one of those.
    pages: Mutex<Vec<(Format, Weak<Page>)>>,
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
    pub(super) fn new(feed: Arc<Feed>, agent: Agent, started: SystemTime) -> Self {
        Self(Arc::new(Inner { feed, agent, started, pages: Mutex::default() }))
    }

    pub(super) fn feed(&self) -> Arc<Feed> {
        Arc::clone(&self.0.feed)
    }

    /// Whether a kernel is traced, rather than a recording read.
    pub(super) fn is_live(&self) -> bool {
        self.0.agent.mode.is_some()
    }

    pub(super) fn router(&self) -> Router {
        Router::new()
            .route("/", get(async || Html(INDEX)))
            .route("/metrics", get(metrics))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .with_state(self.clone())
    }

    /// The page of now, or in need one of those that others have not yet taken.
    async fn page(&self, format: Format) -> Result<Arc<Page>, String> {
        let mut pages = self.0.pages.lock().await;
        pages.retain(|(_, page)| page.strong_count() > 0);
        if pages.len() >= MOST_PAGES
            && let Some(page) = pages.iter().rev().find(|(it, _)| *it == format).and_then(|it| it.1.upgrade())
        {
            return Ok(page);
        }
        let snapshot = self.0.feed.counts().await.ok_or("tracing has not begun yet")?;
        let figures = ProcessFigures::read(self.0.started);
        let page = render(snapshot, &self.0.agent, figures, format).map_err(|error| error.to_string())?;
        let page = Arc::new(Page(page));
        pages.push((format, Arc::downgrade(&page)));
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
    match site.0.feed.silence() {
        None => (StatusCode::SERVICE_UNAVAILABLE, "tracing has not begun yet\n".to_owned()),
        Some(_) if site.0.feed.is_alive() => (StatusCode::OK, "ready\n".to_owned()),
        Some(silence) => {
            let text = format!("no events have been read for {} s\n", silence.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

/// The same pages for those who may look.
pub(super) fn guarded(router: Router, web: Arc<Web>) -> Router {
    if web.users.is_none() {
        return router;
    }
    router.layer(middleware::from_fn_with_state(web, guard))
}

async fn guard(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let admitted = match &web.users {
        Some(users) => users.admits(header).await,
        None => true,
    };
    if admitted {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"tcptrace-bpf\", charset=\"UTF-8\"")];
    (StatusCode::UNAUTHORIZED, challenge, "a name and a password are needed\n").into_response()
}

#[cfg(test)]
mod tests {
    use super::{super::feed, *};

    #[tokio::test]
    async fn before_the_tracing_there_is_nothing_to_show() {
        let (feed, _publisher) = feed::channel();
        let agent = Agent { mode: None, kernel: String::new() };
        let site = Site::new(feed, agent, SystemTime::now());
        assert_eq!(ready(State(site.clone())).await.0, StatusCode::SERVICE_UNAVAILABLE);
        let answer = metrics(State(site), HeaderMap::new()).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
