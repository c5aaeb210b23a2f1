//! The options of `serve`.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use tracer_core::event::{Nanos, TcpState};

use crate::{
    agent::{
        http::ListenAddress,
        logging::{LogFormat, LogLevel},
        metrics::Label,
    },
    cli::{
        FlightArguments,
        parsers::{Named, THRESHOLDS, parse_duration, parse_threshold},
    },
};

/// Options of `serve`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(
    after_help = "Every option can also be a key in the --config file, such as label-limit, or an environment \
                        variable, such as TCPTRACE_LABEL_LIMIT. Options override variables, and variables override \
                        the file."
)]
pub(crate) struct ServeArguments {
    /// Address and port to listen on, or unix:PATH; repeat for more
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', default_value = "127.0.0.1:10793")]
    pub(crate) listen: Vec<ListenAddress>,
    /// File with TLS and passwords in the format of Prometheus exporters; SIGHUP reloads it
    #[arg(long, value_name = "FILE", alias = "web.config.file")]
    pub(crate) web_config: Option<PathBuf>,
    /// Opt-in labels: local_port, process, container, cgroup, k8s_namespace, k8s_pod, k8s_workload, remote_cidr=FILE,
    /// service=FILE
    #[arg(long, value_name = "LABEL", value_delimiter = ',', value_parser = Named::new(str::parse::<LabelRequest>, LABELS), hide_possible_values = true)]
    pub(crate) label: Vec<LabelRequest>,
    /// Maximum values per opt-in label; the least used count as `~other`
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) label_limit: u16,
    /// Drop a labelled series that is unused for this time
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    pub(crate) label_expiry: Duration,
    /// Thresholds of stuck connections by state, such as close_wait=60s,syn_sent=3s; other states keep their defaults
    #[arg(long, value_name = "STATE=TIME", value_delimiter = ',', value_parser = Named::new(parse_threshold, THRESHOLDS), hide_possible_values = true)]
    pub(crate) threshold: Vec<(TcpState, Nanos)>,
    /// TOML file with options
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Show no live page at / and no JSON API, and keep no history
    #[arg(long)]
    pub(crate) no_page: bool,
    /// Further name under which a browser may open the page; names other than the host's are refused
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "no_page")]
    pub(crate) page_host: Vec<String>,
    /// The flight recorder.
    #[command(flatten)]
    pub(crate) flight: FlightArguments,
    /// Folder for the files of --ring
    #[arg(long, value_name = "FOLDER", help_heading = "Flight recorder")]
    pub(crate) freeze_to: Option<PathBuf>,
    /// Check the configuration and exit
    #[arg(long)]
    pub(crate) check: bool,
    /// Format of the log on stderr
    #[arg(long, value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
    /// Lowest level that is logged
    #[arg(long, value_enum, default_value_t)]
    pub(crate) log_level: LogLevel,
}

/// The labels that shells complete; those with a list wait for its file.
const LABELS: [&str; Label::ALL.len()] = {
    let mut names = [""; Label::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = match Label::ALL[index] {
            Label::RemoteCidr => "remote_cidr=",
            Label::Service => "service=",
            label => label.name(),
        };
        index += 1;
    }
    names
};

impl ServeArguments {
    /// Returns the error of options that contradict each other. `input` is the recording that is read instead of the kernel.
    pub(super) fn conflict(&self, input: &[PathBuf]) -> Option<&'static str> {
        match (self.flight.ring, &self.freeze_to) {
            (None, Some(_)) => {
                Some("--freeze-to needs --ring, the memory for the last events; add --ring 64M")
            }
            (None, None) => self.flight.conflict(),
            (Some(_), None) => Some("--ring needs --freeze-to, the folder for its files"),
            (Some(_), Some(_)) if !input.is_empty() => {
                Some("--ring keeps the events of this kernel; it has no use with --input")
            }
            (Some(_), Some(_)) => None,
        }
    }
}

/// A requested opt-in label, with the file of its list for `remote_cidr` and `service`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LabelRequest(pub(crate) Label, pub(crate) Option<PathBuf>);

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
    fn completed_labels_are_accepted_with_their_list() {
        for (name, label) in LABELS.into_iter().zip(Label::ALL) {
            let text = if name.ends_with('=') { format!("{name}/a/list") } else { name.to_owned() };
            assert_eq!(text.parse::<LabelRequest>().unwrap().0, label);
            assert_eq!(name.trim_end_matches('='), label.name());
        }
    }

    #[test]
    fn labels_are_parsed_with_their_lists() {
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
