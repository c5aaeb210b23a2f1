//! Compresses responses with gzip for clients that ask for it (RFC 9110, section 12.5.3).

use std::io::{self, Write as _};

use axum::{
    body::{Body, HttpBody as _, to_bytes},
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use flate2::{Compression, write::GzEncoder};
use tokio::{sync::Semaphore, task::spawn_blocking};

/// Shorter bodies are sent as they are: one segment on the network carries either.
const MIN_BYTES: usize = 1024;
/// Bodies are not longer than this: a document has at most 50 lines of each kind.
const MAX_BYTES: usize = 16 << 20;
/// The bodies are at most an eighth larger than with the best level, in about half of its time (the files of the page).
const LEVEL: u32 = 4;

/// One body at a time is compressed, so that many clients take no more than one processor.
static COMPRESSING: Semaphore = Semaphore::const_new(1);

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As it is.
    Identity,
    /// Compressed with gzip.
    Gzip,
}

impl Encoding {
    /// Returns the encoding that the headers `Accept-Encoding` prefer: gzip, if it is acceptable and not less welcome than
    /// an uncompressed body. A value that is not understood counts as a refusal.
    pub(super) fn negotiate(headers: &HeaderMap) -> Self {
        let (mut gzip, mut any, mut identity) = (None, None, None);
        let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        for coding in values.flat_map(|value| value.split(',')) {
            let (name, parameter) = coding.split_once(';').unwrap_or((coding, "q=1"));
            let weight = Some(weight(parameter));
            match name.trim().to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => gzip = weight,
                "identity" => identity = weight,
                "*" => any = weight,
                _ => {}
            }
        }
        let gzip = gzip.or(any).unwrap_or(0.0);
        if gzip > 0.0 && identity.is_none_or(|identity| gzip >= identity) {
            Self::Gzip
        } else {
            Self::Identity
        }
    }
}

/// Parses `q=0.5`; 0 if it is malformed.
fn weight(parameter: &str) -> f32 {
    let value = parameter.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    let weight = value.and_then(|(_, value)| value.trim().parse().ok());
    weight.filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or(0.0)
}

/// Compresses a body off the thread that serves HTTP.
///
/// # Errors
///
/// When no thread can be started.
pub(super) async fn compressed(body: impl AsRef<[u8]> + Send + 'static) -> io::Result<Vec<u8>> {
    let _turn = COMPRESSING.acquire().await.map_err(io::Error::other)?;
    spawn_blocking(move || gzip(body.as_ref())).await?
}

fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    // A guess, so that the output is moved a few times at most.
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::new(LEVEL));
    encoder.write_all(body)?;
    encoder.finish()
}

/// Adds the headers of a compressed body.
pub(super) fn mark_compressed(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.remove(header::CONTENT_LENGTH);
}

/// Middleware that compresses the bodies of its routes. They are in memory as a whole.
pub(super) async fn compress(request: Request, next: Next) -> Response {
    let encoding = Encoding::negotiate(request.headers());
    let mut response = next.run(request).await;
    response.headers_mut().append(header::VARY, HeaderValue::from_name(header::ACCEPT_ENCODING));
    let length = response.body().size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let is_long = length.is_some_and(|length| (MIN_BYTES..=MAX_BYTES).contains(&length));
    if encoding == Encoding::Identity || !is_long {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Ok(body) = to_bytes(body, MAX_BYTES).await else { return unreadable() };
    match compressed(body.clone()).await {
        Ok(smaller) => {
            mark_compressed(&mut head.headers);
            Response::from_parts(head, Body::from(smaller))
        }
        Err(_) => Response::from_parts(head, Body::from(body)),
    }
}

/// The answer where a body in memory could not be read, which does not happen.
fn unreadable() -> Response {
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn negotiated(values: &[&str]) -> Encoding {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap());
        }
        Encoding::negotiate(&headers)
    }

    #[test]
    fn gzip_is_sent_to_clients_that_ask_for_it() {
        // Prometheus, browsers, `curl --compressed`, two lines, other weights.
        for values in [
            &["gzip"][..],
            &["gzip, deflate, br, zstd"],
            &["deflate, gzip"],
            &["br", "GZIP;q=0.1"],
            &["x-gzip"],
            &["*"],
            &["identity;q=0.5, gzip; Q=0.5"],
            &["gzip;q=1.0, identity; q=0.5, *;q=0"],
        ] {
            assert_eq!(negotiated(values), Encoding::Gzip, "{values:?}");
        }
    }

    #[test]
    fn gzip_is_not_sent_to_clients_that_refuse_it() {
        for values in [
            &[][..],
            &[""],
            &["identity"],
            &["deflate, br"],
            &["gzip;q=0"],
            &["gzip;q=0.000, *"],
            &["*;q=0"],
            &["identity, gzip;q=0.5"],
            &["gzip;q=2"],
            &["gzip;q=x"],
            &["gzip;level=9"],
            &["gzipped"],
        ] {
            assert_eq!(negotiated(values), Encoding::Identity, "{values:?}");
        }
    }

    #[test]
    fn a_compressed_body_is_smaller_and_complete() {
        let lines =
            (0..2000).map(|it| format!("tcptrace_transitions_total{{from=\"a\",to=\"{it}\"}} {it}\n"));
        let text: String = lines.collect();
        let smaller = gzip(text.as_bytes()).unwrap();
        assert!(smaller.len() * 5 < text.len(), "{} of {} bytes", smaller.len(), text.len());
        let mut whole = String::new();
        flate2::read::GzDecoder::new(&smaller[..]).read_to_string(&mut whole).unwrap();
        assert_eq!(whole, text);
    }
}
