//! The header of a recording: the metadata of its schema.

use arrow_schema::Metadata;
use tracer_core::{
    event::{ClockOffset, Nanos, Timestamp},
    lifecycle::TimeWaitModel,
};

use crate::{host::HostNames, recording::FORMAT_VERSION};

/// Why a flight recorder wrote a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenBy {
    /// The condition that held, such as `handshake_p99>1s`; `SIGUSR1` or `HTTP` for a request.
    pub cause: String,
    /// The value above the limit of the condition, for people; none for a request.
    pub measured: Option<String>,
    /// The time of the trigger. The file has the events before it.
    pub time: Timestamp,
}

/// The origin of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The version of the program that wrote it.
    pub tool_version: String,
    /// The version of the eBPF programs' record format.
    pub wire_version: u32,
    /// The recorded host.
    pub host: HostNames,
    /// The offset between the host's monotonic clock and UTC.
    pub clock: ClockOffset,
    /// How long the host's kernel keeps timewait sockets.
    pub time_wait: TimeWaitModel,
    /// The start of this file.
    pub started: Timestamp,
    /// The id of the run, the same for all its files.
    pub run: String,
    /// The number of this file in the run, from 1.
    pub part: u32,
    /// Why a flight recorder wrote the file; none for any other recording.
    pub frozen_by: Option<FrozenBy>,
}

/// Why metadata is not that of a recording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The stream has other content.
    #[error("its Arrow metadata has no `{0}`; pass a file from `tcptrace-bpf record`")]
    Missing(&'static str),
    /// A value is invalid.
    #[error("`{name}` in its metadata has the invalid value `{value}`; record again")]
    Invalid {
        /// The key.
        name: &'static str,
        /// Its value, escaped.
        value: String,
    },
    /// A later version wrote the file.
    #[error(
        "it has format version {0}, and this version reads up to {FORMAT_VERSION}; use the version of tcptrace-bpf that \
         recorded it, or a later one"
    )]
    Newer(u32),
}

const FORMAT: &str = "tcptrace.format";
const TOOL: &str = "tcptrace.tool_version";
const WIRE: &str = "tcptrace.wire_version";
const HOST: &str = "tcptrace.host";
const KERNEL: &str = "tcptrace.kernel";
const MODE: &str = "tcptrace.mode";
const CLOCK: &str = "tcptrace.clock_offset_ns";
const FIN_TIMEOUT: &str = "tcptrace.fin_timeout_ns";
const STARTED: &str = "tcptrace.started_monotonic_ns";
const RUN: &str = "tcptrace.run";
const PART: &str = "tcptrace.part";
/// Absent in files of earlier versions.
const HOOKS: &str = "tcptrace.hooks";
/// Only in files of a flight recorder, as the next two.
const FROZEN_BY: &str = "tcptrace.frozen_by";
const FROZEN_VALUE: &str = "tcptrace.frozen_value";
const FROZEN_AT: &str = "tcptrace.frozen_monotonic_ns";

impl Header {
    /// The keys of the metadata, in the order of the documentation.
    pub const KEYS: [&'static str; 15] = [
        FORMAT,
        TOOL,
        WIRE,
        HOST,
        KERNEL,
        MODE,
        CLOCK,
        FIN_TIMEOUT,
        STARTED,
        RUN,
        PART,
        HOOKS,
        FROZEN_BY,
        FROZEN_VALUE,
        FROZEN_AT,
    ];

    /// Encodes the header as metadata of a schema.
    pub fn to_metadata(&self) -> Metadata {
        let frozen_by = self.frozen_by.as_ref();
        let values = [
            Some(FORMAT_VERSION.to_string()),
            Some(self.tool_version.clone()),
            Some(self.wire_version.to_string()),
            Some(self.host.name.clone()),
            Some(self.host.kernel.clone()),
            Some(self.host.mode.clone()),
            Some(self.clock.to_utc_ns.to_string()),
            Some(self.time_wait.fin_timeout.0.to_string()),
            Some(self.started.0.to_string()),
            Some(self.run.clone()),
            Some(self.part.to_string()),
            Some(self.host.hooks.clone()),
            frozen_by.map(|by| by.cause.clone()),
            frozen_by.and_then(|by| by.measured.clone()),
            frozen_by.map(|by| by.time.0.to_string()),
        ];
        let pairs = Self::KEYS.iter().zip(values);
        pairs.filter_map(|(key, value)| Some(((*key).to_owned(), value?))).collect()
    }

    /// Decodes the metadata of a schema.
    ///
    /// # Errors
    ///
    /// [`HeaderError`]: the stream has other content, is damaged, or has a later version.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, HeaderError> {
        let version = number(metadata, FORMAT)?;
        if version > FORMAT_VERSION {
            return Err(HeaderError::Newer(version));
        }
        Ok(Self {
            tool_version: text(metadata, TOOL)?,
            wire_version: number(metadata, WIRE)?,
            host: HostNames {
                name: text(metadata, HOST)?,
                kernel: text(metadata, KERNEL)?,
                mode: text(metadata, MODE)?,
                hooks: metadata.get(HOOKS).cloned().unwrap_or_default(),
            },
            clock: ClockOffset { to_utc_ns: number(metadata, CLOCK)? },
            time_wait: TimeWaitModel { fin_timeout: Nanos(number(metadata, FIN_TIMEOUT)?) },
            started: Timestamp(number(metadata, STARTED)?),
            run: text(metadata, RUN)?,
            part: number(metadata, PART)?,
            frozen_by: match metadata.get(FROZEN_BY) {
                None => None,
                Some(cause) => Some(FrozenBy {
                    cause: cause.clone(),
                    measured: metadata.get(FROZEN_VALUE).cloned(),
                    time: Timestamp(number(metadata, FROZEN_AT)?),
                }),
            },
        })
    }
}

fn text(metadata: &Metadata, name: &'static str) -> Result<String, HeaderError> {
    metadata.get(name).cloned().ok_or(HeaderError::Missing(name))
}

fn number<T: std::str::FromStr>(metadata: &Metadata, name: &'static str) -> Result<T, HeaderError> {
    let value = metadata.get(name).ok_or(HeaderError::Missing(name))?;
    value
        .parse()
        .map_err(|_| HeaderError::Invalid { name, value: tracer_core::escape::escape(value.as_bytes()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            tool_version: "1.2.3".into(),
            wire_version: 1,
            host: HostNames {
                name: "web-1".into(),
                kernel: "6.18.0".into(),
                mode: "btf".into(),
                hooks: "drop".into(),
            },
            clock: ClockOffset { to_utc_ns: -5 },
            time_wait: TimeWaitModel { fin_timeout: Nanos(7) },
            started: Timestamp(u64::MAX),
            run: "r".into(),
            part: 2,
            frozen_by: None,
        }
    }

    #[test]
    fn metadata_round_trips() {
        assert_eq!(Header::from_metadata(&header().to_metadata()), Ok(header()));
        for measured in [None, Some("3.02s over 24 handshakes".to_owned())] {
            let by = FrozenBy { cause: "handshake_p99>1s".into(), measured, time: Timestamp(9) };
            let frozen = Header { frozen_by: Some(by), ..header() };
            assert_eq!(Header::from_metadata(&frozen.to_metadata()), Ok(frozen));
        }
    }

    #[test]
    fn errors_name_the_key() {
        let mut metadata = header().to_metadata();
        metadata.insert(PART, "\u{1b}");
        let error = Header::from_metadata(&metadata).unwrap_err().to_string();
        assert!(error.contains("`tcptrace.part`") && error.contains("\\x1b"), "{error}");
        metadata.remove(RUN);
        assert_eq!(Header::from_metadata(&metadata), Err(HeaderError::Missing(RUN)));
        metadata.insert(FORMAT, "2");
        assert_eq!(Header::from_metadata(&metadata), Err(HeaderError::Newer(2)));
        assert_eq!(Header::from_metadata(&Metadata::default()), Err(HeaderError::Missing(FORMAT)));
    }
}
