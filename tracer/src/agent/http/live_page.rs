//! The live page at `/`, and the JSON API that it reads.
//!
//! The page is three files without a build step. The Content-Security-Policy permits only these and the API.

use std::time::{Duration, Instant};

use axum::{
    Json, Router,
    extract::{Query, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use tokio::sync::Mutex;
use tracer_core::event::ClockOffset;

use crate::{
    agent::{
        http::{freeze_api, gzip, host_check::HostCheck, pages::Site},
        metrics::Figures,
        overview::{ApiError, Facet, Inputs, openapi, overview},
        publisher::Counts,
    },
    flight_recorder::FreezeHandle,
};

const INDEX: &str = include_str!("page/index.html");
const SCRIPT: &str = include_str!("page/page.js");
const STYLE: &str = include_str!("page/page.css");
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How long the counts of one request serve others, so that many browsers cost the tracing thread one copy.
const SHARE_FOR: Duration = Duration::from_millis(500);

/// What the page needs to know.
#[derive(Clone, Debug)]
pub(crate) struct PageOptions {
    /// The name of the traced host.
    pub(crate) host: String,
    /// The offset between its monotonic clock and UTC.
    pub(crate) clock: ClockOffset,
    /// Further permitted names in the Host header.
    pub(crate) names: Vec<String>,
    /// Asks the flight recorder for a file; none without one.
    pub(crate) freeze: Option<FreezeHandle>,
}

/// The page's state.
pub(super) struct PageState {
    pub(super) options: PageOptions,
    hosts: HostCheck,
    /// The latest counts. Locked while a document is made, so there is one at a time.
    latest: Mutex<Option<(Instant, Counts, Figures)>>,
}

impl PageState {
    pub(super) fn new(options: PageOptions) -> Self {
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let hosts = HostCheck::new(options.names.iter().cloned().chain([own]));
        Self { options, hosts, latest: Mutex::default() }
    }
}

/// Returns the routes of the page and the API.
pub(super) fn router(site: &Site) -> Router<Site> {
    let file = |kind: &'static str, text: &'static str| {
        get(async move || ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text))
    };
    Router::new()
        .route("/", get(async || Html(INDEX)))
        .route("/page.js", file("text/javascript; charset=utf-8", SCRIPT))
        .route("/page.css", file("text/css; charset=utf-8", STYLE))
        .route("/api/v1/overview", get(api))
        .route("/api/v1/openapi.json", get(description))
        .route("/api/v1/freeze", post(freeze_api::freeze))
        .layer(middleware::from_fn(gzip::compress))
        .layer(middleware::from_fn_with_state(site.clone(), protect))
}

/// Checks the Host header, and adds headers that keep a browser from doing more than the page needs.
async fn protect(State(site): State<Site>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).map(|value| value.to_str().unwrap_or("?"));
    let hosts = site.0.page.as_ref().map(|page| &page.hosts);
    if !hosts.is_some_and(|hosts| hosts.permits(host)) {
        let text = "the Host header is not a name of this host: use its IP address, or permit the name with --page-host\n";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    let mut response = next.run(request).await;
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Returns an error as a JSON document.
pub(super) fn error(status: StatusCode, text: &str) -> Response {
    (status, Json(ApiError { error: text.to_owned() })).into_response()
}

async fn api(State(site): State<Site>, Query(parameters): Query<Vec<(String, String)>>) -> Response {
    let facet = match Facet::of_query(&parameters) {
        Ok(facet) => facet,
        Err(invalid) => return error(StatusCode::BAD_REQUEST, &invalid.to_string()),
    };
    let Some(page) = &site.0.page else { return StatusCode::NOT_FOUND.into_response() };
    let mut latest = page.latest.lock().await;
    if latest.as_ref().is_none_or(|(made_at, ..)| made_at.elapsed() >= SHARE_FOR) {
        let Some(counts) = site.0.snapshots.counts_with_hour().await else {
            return error(
                StatusCode::SERVICE_UNAVAILABLE,
                "there are no counts yet: try again in some seconds",
            );
        };
        let figures = site.figures(&counts).await;
        *latest = Some((Instant::now(), counts, figures));
    }
    let Some((_, counts, figures)) = latest.clone() else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "there are no counts");
    };
    let (agent, options) = (site.0.agent.clone(), page.options.clone());
    // Off the thread that serves HTTP, because merging the groups takes some milliseconds.
    let made = tokio::task::spawn_blocking(move || {
        let hour = counts.hour.as_deref()?;
        let PageOptions { host, clock, .. } = &options;
        let inputs =
            Inputs { hour, metrics: &counts.snapshot, agent: &agent, figures: &figures, host, clock: *clock };
        Some(overview(inputs, facet))
    })
    .await;
    match made {
        Ok(Some(document)) => Json(document).into_response(),
        _ => error(StatusCode::INTERNAL_SERVER_ERROR, "the overview could not be made"),
    }
}

async fn description() -> Response {
    match openapi() {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(failed) => error(StatusCode::INTERNAL_SERVER_ERROR, &failed.to_string()),
    }
}
