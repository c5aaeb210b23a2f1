//! `POST /api/v1/freeze`: writes a file of the flight recorder.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::time::timeout;

use crate::{
    agent::{
        http::{live_page::error, pages::Site},
        overview::FrozenFile,
    },
    flight_recorder::FreezeError,
    report::rfc3339,
};

/// Longest wait for the file.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Writes a file and returns its name.
pub(super) async fn freeze(State(site): State<Site>, headers: HeaderMap) -> Response {
    if !is_of_this_site(&headers) {
        return error(StatusCode::FORBIDDEN, "a page of another site may not freeze a recording");
    }
    let options = site.0.page.as_ref().map(|page| &page.options);
    let Some((handle, clock)) = options.and_then(|options| Some((options.freeze.clone()?, options.clock)))
    else {
        let text = "there is no flight recorder: start serve with --ring and --freeze-to";
        return error(StatusCode::CONFLICT, text);
    };
    let frozen = match timeout(TIMEOUT, handle.http()).await {
        Ok(Ok(frozen)) => frozen,
        Ok(Err(busy @ FreezeError::Busy)) => {
            return error(StatusCode::SERVICE_UNAVAILABLE, &busy.to_string());
        }
        Ok(Err(failed)) => return error(StatusCode::INTERNAL_SERVER_ERROR, &failed.to_string()),
        Err(_) => {
            let text = "the file is still being written; the log will name it";
            return error(StatusCode::GATEWAY_TIMEOUT, text);
        }
    };
    let document = FrozenFile {
        file: frozen.path.display().to_string(),
        bytes: frozen.bytes,
        from: rfc3339(frozen.from, clock).to_string(),
        until: rfc3339(frozen.by.time, clock).to_string(),
    };
    Json(document).into_response()
}

/// Returns whether the request is not one that a page of another site makes a browser send. Browsers name that site as Origin.
fn is_of_this_site(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    ["http://", "https://"]
        .iter()
        .any(|scheme| origin.strip_prefix(scheme).is_some_and(|it| Some(it) == host))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn pages_of_other_sites_are_refused() {
        let of = |origin: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:10793"));
            headers.extend(origin.map(|origin| (header::ORIGIN, HeaderValue::from_static(origin))));
            is_of_this_site(&headers)
        };
        for own in [None, Some("http://127.0.0.1:10793"), Some("https://127.0.0.1:10793")] {
            assert!(of(own), "{own:?}");
        }
        for other in ["null", "https://attacker.example", "http://127.0.0.1", "127.0.0.1:10793", ""] {
            assert!(!of(Some(other)), "{other}");
        }
    }
}
