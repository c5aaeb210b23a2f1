//! Tips for options that do not exist, but that other tools have.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Options of other tools, and what to use here.
const TIPS: &[(&[&str], &str)] = &[
    (&["--port", "--ports", "-P"], "use --local-port or --remote-port"),
    (&["--lport", "--sport", "--src-port", "-L"], "use --local-port"),
    (&["--rport", "--dport", "--dst-port", "-D"], "use --remote-port"),
    (&["-p"], "use --pid for a process, --local-port or --remote-port for a port"),
    (&["--json", "-j", "-J"], "use -o json"),
    (&["--csv"], "use -o csv"),
    (&["--wide", "-w"], "use -o wide"),
    (&["--format"], "use -o table, wide, json or csv"),
    (&["-f", "--follow", "--watch"], "the output is live without an option; -d 10s or -n 5 ends it"),
    (&["--host", "--dst", "--dest", "--peer", "--remote-ip"], "use --remote, as in --remote 192.0.2.7"),
    (&["--src", "--source", "--bind", "--local-ip"], "use --local, as in --local 192.0.2.7"),
    (&["--process", "--name", "--command"], "use --comm, as in --comm nginx"),
    (&["--time-limit", "--timeout", "--seconds"], "use -d, as in -d 10s"),
    (&["--limit", "--lines", "--max"], "use -n, as in -n 10"),
    (&["--namespace"], "use --netns for a network namespace, --k8s-namespace for one of Kubernetes"),
    (&["--container", "--container-id"], "use --cgroup or --pod"),
    (&["--file", "--read", "-r"], "use -i for a recording"),
    (&["--write"], "use the command `record FILE`"),
    (&["--errors", "--failures", "--failed-only"], "use --failed"),
    (&["--debug"], "use -v"),
    (&["--utc"], "use --time utc"),
];

/// Replaces the tip of an unknown option by one that names the option to use, if there is one.
pub(super) fn with_tip(mut error: clap::Error) -> clap::Error {
    let tip = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(given))) => tip(given),
        _ => None,
    };
    if let Some(tip) = tip {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        error.remove(ContextKind::SuggestedArg);
    }
    error
}

fn tip(given: &str) -> Option<&'static str> {
    let name = given.split('=').next().unwrap_or(given);
    TIPS.iter().find(|(names, _)| names.contains(&name)).map(|(_, tip)| *tip)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::{Cli, command};

    fn error(words: &[&str]) -> String {
        let words = ["tcptrace-bpf"].iter().chain(words).map(OsString::from);
        Cli::read(words, |_| None).unwrap_err().to_string()
    }

    #[test]
    fn options_of_other_tools_have_a_tip() {
        for (words, part) in [
            (&["--port", "443"][..], "use --local-port or --remote-port"),
            (&["--port=443"], "use --local-port or --remote-port"),
            (&["stuck", "-p", "1"], "use --pid"),
            (&["--json"], "use -o json"),
            (&["transitions", "-f"], "live without an option"),
        ] {
            let error = error(words);
            assert!(error.contains(&format!("tip: {part}")) || error.contains(part), "{error}");
            assert_eq!(error.matches("tip:").count(), 1, "{error}");
        }
    }

    #[test]
    fn tips_are_for_options_that_do_not_exist_and_name_options_that_do() {
        let command = command();
        let known = |word: &str| {
            command.get_arguments().any(|option| {
                option.get_long().is_some_and(|long| word == format!("--{long}"))
                    || option.get_short().is_some_and(|short| word == format!("-{short}"))
            })
        };
        for (names, tip) in TIPS {
            for name in *names {
                assert!(!known(name), "{name} exists");
            }
            let words = tip.split([' ', ',', ';']).filter(|word| word.starts_with('-'));
            for word in words {
                assert!(known(word), "{tip}: {word} does not exist");
            }
        }
    }
}
