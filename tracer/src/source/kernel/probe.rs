//! What this kernel can do, found by trying, never by its version.

use std::fs;

use super::{
    btf, load,
    load::{LoadOptions, Mode},
    privileges, tracefs,
};

/// The outcome of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is there; the text says what exactly.
    Found(String),
    /// It is not; the text says why.
    Missing(String),
}

/// One thing that tracing can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What it is.
    pub name: &'static str,
    /// Whether it is there.
    pub finding: Finding,
    /// What its absence costs.
    pub cost: &'static str,
}

/// Tries everything. Programs are loaded, attached and let go of again.
pub fn all() -> Vec<Check> {
    let options = LoadOptions { buffer_bytes: 1 << 16, only_netns: None };
    let types = load::read_btf();
    let has = |function: &str| types.as_ref().is_ok_and(|types| types.has_function(function));
    let btf_mode = load::load(Mode::Btf, options);
    let skips = btf_mode.as_ref().ok().map(|_| ());
    let skip_count = btf_mode.map(|mut loaded| loaded.skipped.read());
    let tracepoint_mode = load::load(Mode::Tracepoint, options);
    let ring_buffer = skips.is_some() || tracepoint_mode.is_ok();
    vec![
        Check { name: "kernel", finding: Finding::Found(kernel_release()), cost: "" },
        Check {
            name: "capabilities",
            finding: match privileges::check() {
                Ok(()) => Finding::Found("all that loading and attaching need".to_owned()),
                Err(missing) => Finding::Missing(missing.to_string()),
            },
            cost: "nothing can be traced",
        },
        Check {
            name: "kernel BTF",
            finding: match &types {
                Ok(_) => Finding::Found(btf::VMLINUX.to_owned()),
                Err(error) => Finding::Missing(error.to_string()),
            },
            cost: "mode btf, and with it the kernel's own figures: server handshakes, close reasons, bytes, namespaces",
        },
        Check {
            name: "tracefs",
            finding: match tracefs::mounted() {
                Some(path) => Finding::Found(path.display().to_string()),
                None => Finding::Missing("not mounted at /sys/kernel/tracing".to_owned()),
            },
            cost: "nothing: mode tracepoint mounts it privately where it may",
        },
        Check {
            name: "ring buffer",
            finding: if ring_buffer {
                Finding::Found("BPF_MAP_TYPE_RINGBUF".to_owned())
            } else {
                Finding::Missing("no program with a ring buffer could be loaded".to_owned())
            },
            cost: "nothing can be traced: kernel 5.8 has it",
        },
        Check {
            name: "mode btf",
            finding: match &skip_count {
                Ok(_) => Finding::Found("tp_btf on sock:inet_sock_set_state".to_owned()),
                Err(error) => Finding::Missing(error.to_string()),
            },
            cost: "mode tracepoint is used instead: dearer, and skipped whenever it interrupts another program",
        },
        Check {
            name: "mode tracepoint",
            finding: match &tracepoint_mode {
                Ok(_) => Finding::Found("classic tracepoint sock:inet_sock_set_state".to_owned()),
                Err(error) => Finding::Missing(error.to_string()),
            },
            cost: "no fallback for mode btf",
        },
        Check {
            name: "skip counter",
            finding: match skip_count {
                Ok(Some(_)) => Finding::Found("recursion_misses of the program".to_owned()),
                Ok(None) => {
                    Finding::Missing("this kernel does not count skipped runs (5.12 does)".to_owned())
                }
                Err(_) => Finding::Missing("no program could be loaded".to_owned()),
            },
            cost: "events that the kernel skipped are not counted",
        },
        fentry(&has),
    ]
}

fn fentry(has: &dyn Fn(&str) -> bool) -> Check {
    Check {
        name: "fentry",
        finding: if has("inet_twsk_kill") {
            match load::try_fentry() {
                Ok(()) => Finding::Found("attaches to inet_twsk_kill".to_owned()),
                Err(error) => Finding::Missing(error.to_string()),
            }
        } else {
            Finding::Missing("the kernel's BTF has no function inet_twsk_kill".to_owned())
        },
        cost: "the end of TIME_WAIT is modelled (60 s), not observed",
    }
}

fn kernel_release() -> String {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    format!("{} {}", read("/proc/sys/kernel/osrelease"), read("/proc/sys/kernel/arch"))
}
