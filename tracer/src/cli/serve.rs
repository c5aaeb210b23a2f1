//! The options of `serve`.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use tracer_core::event::TcpState;

use crate::{
    agent::{
        http::ListenAddress,
        logging::{LogFormat, LogLevel},
        metrics::Label,
    },
    cli::{parse_duration, parse_threshold},
};

/// Options of `serve`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(
    after_help = "Every option is also a key of the file that --config names, by its long name without dashes \
                        in front, and a variable: --label-limit is TCPTRACE_LABEL_LIMIT. What is given here comes \
                        before the variable, and that before the file."
)]
pub struct ServeArguments {
    /// Where to listen: an address and port, or unix:PATH; again for more
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', default_value = "127.0.0.1:10793")]
    pub listen: Vec<ListenAddress>,
    /// TLS and passwords, in the format of Prometheus exporters; SIGHUP reads it again
    #[arg(long, value_name = "FILE", alias = "web.config.file")]
    pub web_config: Option<PathBuf>,
    /// Labels beside the closed ones: local_port, process, container, cgroup, remote_cidr=FILE, service=FILE
    #[arg(long, value_name = "LABEL", value_delimiter = ',')]
    pub label: Vec<LabelRequest>,
    /// Most values of each such label; the least used are counted under `~other`
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub label_limit: u16,
    /// How long a series lasts that nothing uses
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    pub label_expiry: Duration,
    /// Longest time in a state, such as close_wait=60s,syn_sent=3s; the others keep their defaults
    #[arg(long, value_name = "STATE=TIME", value_delimiter = ',', value_parser = parse_threshold)]
    pub threshold: Vec<(TcpState, u64)>,
    /// A TOML file with options
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Read the configuration, say what is wrong with it, and end
    #[arg(long)]
    pub check: bool,
    /// Form of the log on stderr
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// How much is logged
    #[arg(long, value_enum, default_value_t)]
    pub log_level: LogLevel,
}

/// An opt-in label, with its list if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRequest(pub Label, pub Option<PathBuf>);

impl FromStr for LabelRequest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, list) = match text.split_once('=') {
            Some((name, list)) => (name, Some(PathBuf::from(list))),
            None => (text, None),
        };
        let label = Label::ALL.into_iter().find(|label| label.name() == name).ok_or_else(|| {
            let names: Vec<_> = Label::ALL.iter().map(|label| label.name()).collect();
            format!("`{name}` is not a label: use one of {}", names.join(", "))
        })?;
        match (label, &list) {
            (Label::RemoteCidr | Label::Service, None) => {
                Err(format!("`{name}` needs a list: use {name}=FILE, see docs/metrics.md"))
            }
            (Label::RemoteCidr | Label::Service, Some(_)) | (_, None) => Ok(Self(label, list)),
            (_, Some(_)) => Err(format!("`{name}` takes no list: use {name} alone")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_their_lists() {
        assert_eq!("process".parse(), Ok(LabelRequest(Label::Process, None)));
        let service = LabelRequest(Label::Service, Some("/etc/services.list".into()));
        assert_eq!("service=/etc/services.list".parse(), Ok(service));
        for (text, part) in
            [("service", "needs a list"), ("process=x", "takes no list"), ("remote_address", "remote_cidr")]
        {
            let error = text.parse::<LabelRequest>().unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
