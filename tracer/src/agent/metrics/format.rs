//! The formats of the page, and their negotiation.

use prometheus_client::{
    encoding::{prometheus_protobuf, text as openmetrics},
    registry::Registry,
};

use crate::agent::metrics::text;

/// A format of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageFormat {
    /// Prometheus's text format.
    Text,
    /// OpenMetrics text.
    OpenMetrics,
    /// Prometheus's protobuf, the only format with native histograms.
    Protobuf,
}

/// A page that could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The text encoder failed.
    #[error("the page could not be written as text: {0}")]
    Text(#[from] std::fmt::Error),
    /// The protobuf encoder failed.
    #[error("the page could not be written as protobuf: {0}")]
    Protobuf(#[from] prometheus_protobuf::EncodeError),
}

impl PageFormat {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Text, Self::OpenMetrics, Self::Protobuf];

    /// Returns the format that the header `Accept` prefers; plain text when there is no preference.
    pub(crate) fn negotiate(accept: Option<&str>) -> Self {
        let mut best: Option<(f32, Self)> = None;
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let mut parameters = parts.filter_map(|part| part.split_once('='));
            let has = |name: &str, value: &str| {
                parameters.clone().any(|(key, it)| key.trim() == name && it.trim().trim_matches('"') == value)
            };
            let format = match media {
                "application/vnd.google.protobuf"
                    if has("proto", "io.prometheus.client.MetricFamily") && has("encoding", "delimited") =>
                {
                    Self::Protobuf
                }
                "application/openmetrics-text" => Self::OpenMetrics,
                "text/plain" | "text/*" | "*/*" => Self::Text,
                _ => continue,
            };
            let quality = parameters
                .find(|(key, _)| key.trim() == "q")
                .map_or(1.0, |(_, value)| value.trim().parse().unwrap_or(0.0));
            // Among equals, the first wins.
            if quality > 0.0 && best.is_none_or(|(before, _)| quality > before) {
                best = Some((quality, format));
            }
        }
        best.map_or(Self::Text, |(_, format)| format)
    }

    /// Returns the value of the header `Content-Type`.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    pub(super) fn encode(self, registry: &Registry) -> Result<Vec<u8>, PageError> {
        Ok(match self {
            Self::Text => text::write(&prometheus_protobuf::encode(registry)?).into_bytes(),
            Self::OpenMetrics => {
                let mut page = String::new();
                openmetrics::encode(&mut page, registry)?;
                page.into_bytes()
            }
            Self::Protobuf => prometheus_protobuf::encode_to_vec(registry)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers_select_a_format() {
        for (accept, format) in [
            (None, PageFormat::Text),
            (Some(""), PageFormat::Text),
            (Some("*/*"), PageFormat::Text),
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), PageFormat::Text),
            // Prometheus 2.42, without and with native histograms.
            (
                Some(
                    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                     text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ),
                PageFormat::OpenMetrics,
            ),
            (
                Some(
                    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                     application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ),
                PageFormat::Protobuf,
            ),
            (
                Some("application/vnd.google.protobuf;proto=x;encoding=text,text/plain;q=0.1"),
                PageFormat::Text,
            ),
            (Some("application/openmetrics-text;q=0,text/plain"), PageFormat::Text),
            (Some("text/plain;q=0.2, application/openmetrics-text;q=0.9"), PageFormat::OpenMetrics),
            (Some(";;;=,q=,\u{1}"), PageFormat::Text),
        ] {
            assert_eq!(PageFormat::negotiate(accept), format, "{accept:?}");
        }
    }
}
