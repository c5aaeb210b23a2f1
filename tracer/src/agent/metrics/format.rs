//! The formats of the page, and which one is asked for.

use prometheus_client::{
    encoding::{prometheus_protobuf, text as openmetrics},
    registry::Registry,
};

use crate::agent::metrics::text;

/// A format of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus's text format, which people read.
    Text,
    /// OpenMetrics text.
    OpenMetrics,
    /// Prometheus's protobuf, the only one with native histograms.
    Protobuf,
}

/// Why a page could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The text encoder's.
    #[error("the page could not be written as text: {0}")]
    Text(#[from] std::fmt::Error),
    /// The protobuf encoder's.
    #[error("the page could not be written as protobuf: {0}")]
    Protobuf(#[from] prometheus_protobuf::EncodeError),
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Text, Self::OpenMetrics, Self::Protobuf];

    /// The format that the header `Accept` prefers; plain text for whoever does not say.
    pub fn negotiate(accept: Option<&str>) -> Self {
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
            // Of equals the first.
            if quality > 0.0 && best.is_none_or(|(before, _)| quality > before) {
                best = Some((quality, format));
            }
        }
        best.map_or(Self::Text, |(_, format)| format)
    }

    /// The header `Content-Type`.
    pub const fn content_type(self) -> &'static str {
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
    fn what_monitors_send() {
        for (accept, format) in [
            (None, Format::Text),
            (Some(""), Format::Text),
            (Some("*/*"), Format::Text),
            (Some("text/html,application/xhtml+xml,*/*;q=0.8"), Format::Text),
            // Prometheus 2.42, without and with native histograms.
            (
                Some(
                    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                     text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ),
                Format::OpenMetrics,
            ),
            (
                Some(
                    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                     application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ),
                Format::Protobuf,
            ),
            (Some("application/vnd.google.protobuf;proto=x;encoding=text,text/plain;q=0.1"), Format::Text),
            (Some("application/openmetrics-text;q=0,text/plain"), Format::Text),
            (Some("text/plain;q=0.2, application/openmetrics-text;q=0.9"), Format::OpenMetrics),
            (Some(";;;=,q=,\u{1}"), Format::Text),
        ] {
            assert_eq!(Format::negotiate(accept), format, "{accept:?}");
        }
    }
}
