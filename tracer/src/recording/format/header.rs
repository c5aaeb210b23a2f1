//! What a recording says about itself: the metadata of its schema.

use arrow_schema::Metadata;
use tracer_core::{
    event::{ClockOffset, Timestamp},
    lifecycle::TimeWaitModel,
};

use crate::{host::HostNames, recording::FORMAT_VERSION};

/// Where and how a recording was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The program that wrote it, by its version.
    pub tool_version: String,
    /// The version of the kernel side's records behind it.
    pub wire_version: u32,
    /// The recorded host.
    pub host: HostNames,
    /// How the host's monotonic clock stands to UTC.
    pub clock: ClockOffset,
    /// How long its kernel keeps what timewait_sockets of a closed connection.
    pub time_wait: TimeWaitModel,
    /// When this file begins.
    pub started: Timestamp,
    /// The same for all files of one run.
    pub run: String,
    /// Which file of the run this is, from 1.
    pub part: u32,
}

/// Why metadata is not a recording's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// An Arrow stream of something else.
    #[error("it is an Arrow stream without `{0}` in its metadata: no recording of tcptrace-bpf")]
    Missing(&'static str),
    /// Damaged metadata.
    #[error("`{name}` in its metadata is `{value}`, which cannot be understood: the file is damaged")]
    Odd {
        /// The key.
        name: &'static str,
        /// Its value, escaped.
        value: String,
    },
    /// Written by a later version.
    #[error(
        "it has format version {0}, and this program reads up to {FORMAT_VERSION}: use a tcptrace-bpf as new as the \
         one that recorded it"
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

impl Header {
    /// The keys of the metadata, in the order of the documentation.
    pub const KEYS: [&'static str; 11] =
        [FORMAT, TOOL, WIRE, HOST, KERNEL, MODE, CLOCK, FIN_TIMEOUT, STARTED, RUN, PART];

    /// As metadata of a schema.
    pub fn to_metadata(&self) -> Metadata {
        let values = [
            FORMAT_VERSION.to_string(),
            self.tool_version.clone(),
            self.wire_version.to_string(),
            self.host.name.clone(),
            self.host.kernel.clone(),
            self.host.mode.clone(),
            self.clock.to_utc_ns.to_string(),
            self.time_wait.fin_timeout_ns.to_string(),
            self.started.0.to_string(),
            self.run.clone(),
            self.part.to_string(),
        ];
        Self::KEYS.iter().map(|key| (*key).to_owned()).zip(values).collect()
    }

    /// Reads the metadata of a schema.
    ///
    /// # Errors
    ///
    /// [`HeaderError`]: of something else, damaged, or of a later version.
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
            },
            clock: ClockOffset { to_utc_ns: number(metadata, CLOCK)? },
            time_wait: TimeWaitModel { fin_timeout_ns: number(metadata, FIN_TIMEOUT)? },
            started: Timestamp(number(metadata, STARTED)?),
            run: text(metadata, RUN)?,
            part: number(metadata, PART)?,
        })
    }
}

fn text(metadata: &Metadata, name: &'static str) -> Result<String, HeaderError> {
    metadata.get(name).cloned().ok_or(HeaderError::Missing(name))
}

fn number<T: std::str::FromStr>(metadata: &Metadata, name: &'static str) -> Result<T, HeaderError> {
    let value = metadata.get(name).ok_or(HeaderError::Missing(name))?;
    value.parse().map_err(|_| HeaderError::Odd { name, value: tracer_core::escape::escape(value.as_bytes()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            tool_version: "1.2.3".into(),
            wire_version: 1,
            host: HostNames { name: "web-1".into(), kernel: "6.18.0".into(), mode: "btf".into() },
            clock: ClockOffset { to_utc_ns: -5 },
            time_wait: TimeWaitModel { fin_timeout_ns: 7 },
            started: Timestamp(u64::MAX),
            run: "r".into(),
            part: 2,
        }
    }

    #[test]
    fn metadata_is_read_back() {
        assert_eq!(Header::from_metadata(&header().to_metadata()), Ok(header()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut metadata = header().to_metadata();
        metadata.insert(PART, "\u{1b}");
        let odd = Header::from_metadata(&metadata).unwrap_err().to_string();
        assert!(odd.contains("`tcptrace.part`") && odd.contains("\\x1b"), "{odd}");
        metadata.remove(RUN);
        assert_eq!(Header::from_metadata(&metadata), Err(HeaderError::Missing(RUN)));
        metadata.insert(FORMAT, "2");
        assert_eq!(Header::from_metadata(&metadata), Err(HeaderError::Newer(2)));
        assert_eq!(Header::from_metadata(&Metadata::default()), Err(HeaderError::Missing(FORMAT)));
    }
}
