//! Tests what this kernel supports by trying it, not by its version.

use std::{
    env, fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use tracer_core::{counted::counted_as, event::Event};

use crate::{
    host::{CgroupLimits, CgroupPaths, DEFAULT_NICE, NamespaceFacts, Priority, Sight, Visibility},
    sources::{
        Source as _, conntrack,
        live::{
            KernelOptions, KernelSource, btf,
            hooks::{Hook, Hooks, RefusedHook},
            load::{self, LoadOptions, Mode, Twin},
            privileges, tracefs,
        },
        sock_diag::existing,
    },
};

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The feature works. The text has details.
    Found(String),
    /// The feature does not work. The text has the reason.
    Missing(String),
}

/// A feature that tracing can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// The name.
    pub name: &'static str,
    /// The result.
    pub finding: Finding,
    /// The effect of a missing feature.
    pub cost: &'static str,
}

/// Runs all checks. Loads, attaches and detaches the programs.
pub(crate) fn all() -> Vec<Check> {
    let options =
        LoadOptions { buffer_bytes: 1 << 16, cpus: 1, only_netns: None, hooks: Hooks::ALL, twin: true };
    let types = load::read_btf();
    let (skip_count, hooks, twin) = match load::load(Mode::Btf, options) {
        Ok(mut loaded) => {
            (Ok(loaded.skipped.read()), Some((loaded.attached, loaded.refused)), Some(loaded.twin))
        }
        Err(error) => (Err(error), None, None),
    };
    let tracepoint_mode = load::load(Mode::Tracepoint, options);
    let ring_buffer = match (&skip_count, &tracepoint_mode) {
        (Ok(_), _) | (_, Ok(_)) => Ok(()),
        (_, Err(error)) => Err(error.to_string()),
    };
    let visibility = Visibility::of(&NamespaceFacts::read(Path::new("/proc")));
    let mut checks = vec![
        Check { name: "kernel", finding: Finding::Found(kernel_release()), cost: "" },
        Check {
            name: "capabilities",
            finding: match privileges::check() {
                Ok(()) => Finding::Found("all that loading and attaching need".to_owned()),
                Err(missing) => Finding::Missing(missing.to_string()),
            },
            cost: "nothing can be traced",
        },
    ];
    checks.extend(namespaces(&visibility));
    checks.extend([
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
                Some(path) => match tracefs::check_readable(&path) {
                    Ok(()) => Finding::Found(path.display().to_string()),
                    Err(error) => Finding::Missing(error.to_string()),
                },
                None => Finding::Missing("not mounted at /sys/kernel/tracing".to_owned()),
            },
            cost: "nothing if mode tracepoint may mount it privately",
        },
        Check {
            name: "ring buffer",
            finding: match ring_buffer {
                Ok(()) => Finding::Found("BPF_MAP_TYPE_RINGBUF".to_owned()),
                Err(reason) => Finding::Missing(format!("no program with a ring buffer could be loaded: {reason}")),
            },
            cost: "nothing can be traced",
        },
        Check {
            name: "mode btf",
            finding: match &skip_count {
                Ok(_) => Finding::Found("tp_btf on sock:inet_sock_set_state".to_owned()),
                Err(error) => Finding::Missing(error.to_string()),
            },
            cost: "mode tracepoint is used: it costs more, and the kernel skips it while another classic tracepoint program runs on that CPU",
        },
        Check {
            name: "mode tracepoint",
            finding: match &tracepoint_mode {
                Ok(_) => Finding::Found("classic tracepoint sock:inet_sock_set_state".to_owned()),
                Err(error) => Finding::Missing(error.to_string()),
            },
            cost: "no fallback for mode btf",
        },
        twin_check("twin", twin.as_ref(), "tp_btf"),
        twin_check(
            "twin tracepoint",
            tracepoint_mode.as_ref().ok().map(|loaded| &loaded.twin),
            "raw tracepoint",
        ),
        skip_check("skip counter", "5.12", skip_count.is_ok(), skip_count.ok().flatten()),
        skip_check(
            "skip counter tracepoint",
            "6.7",
            tracepoint_mode.is_ok(),
            tracepoint_mode.ok().and_then(|mut loaded| loaded.skipped.read()),
        ),
        reader_priority(),
        self_test(),
        existing_sockets(&visibility),
        cgroups(),
        conntrack_check(),
    ]);
    checks.extend(Hook::ALL.map(|hook| hook_check(hook, hooks.as_ref())));
    checks
}

/// Returns a check for each namespace of this process.
fn namespaces(visibility: &Visibility) -> impl Iterator<Item = Check> {
    visibility.namespaces().into_iter().map(|namespace| Check {
        name: namespace.check,
        finding: match &namespace.sight {
            Sight::Whole(reason) => Finding::Found(reason.clone()),
            Sight::Part(reason) => Finding::Missing(reason.clone()),
            Sight::Unknown(reason) => Finding::Missing(format!("unknown: {reason}")),
        },
        cost: namespace.cost,
    })
}

/// Returns the check of a twin program of this type.
fn twin_check(name: &'static str, twin: Option<&Twin>, kind: &str) -> Check {
    Check {
        name,
        finding: match twin {
            Some(Twin::Attached) => {
                Finding::Found(format!("a second program ({kind}) records what the kernel skips"))
            }
            Some(Twin::Refused(error)) => Finding::Missing(error.to_string()),
            Some(Twin::Unwanted) | None => Finding::Missing("no program could be loaded".to_owned()),
        },
        cost: "transitions that the kernel skips are lost; they are counted if the kernel has a skip counter",
    }
}

/// Returns the check of a skip counter. `since` is the first kernel version with it.
fn skip_check(name: &'static str, since: &str, loaded: bool, count: Option<u64>) -> Check {
    Check {
        name,
        finding: match count {
            Some(_) => Finding::Found("recursion_misses of the program".to_owned()),
            None if loaded => {
                Finding::Missing(format!("this kernel does not count skipped runs ({since} does)"))
            }
            None => Finding::Missing("no program could be loaded".to_owned()),
        },
        cost: "events that the kernel skipped are not counted",
    }
}

/// Lowers the nice value of this thread for a moment.
fn reader_priority() -> Check {
    Check {
        name: "reader priority",
        finding: match Priority::set(None) {
            Ok(Some(_)) => Finding::Found(format!("the tracing thread runs at nice {DEFAULT_NICE}")),
            Ok(None) => {
                Finding::Found("the tracing thread keeps the nice value that was set from outside".to_owned())
            }
            Err(refused) => Finding::Missing(refused.to_string()),
        },
        cost: "a busy host may delay the reader until events are lost",
    }
}

/// The transitions of a loopback connection: two of its listener, five of each endpoint.
const SELF_TEST_TRANSITIONS: u64 = 12;

/// Traces a loopback connection and compares the number of its transitions.
fn self_test() -> Check {
    Check {
        name: "self-test",
        finding: match trace_own_connection() {
            Ok(account) if account.seen == SELF_TEST_TRANSITIONS => Finding::Found(format!(
                "all {SELF_TEST_TRANSITIONS} transitions of a loopback connection were seen"
            )),
            Ok(account) => Finding::Missing(format!(
                "{} of {SELF_TEST_TRANSITIONS} transitions of a loopback connection were seen; on the whole host {} were lost in the ring, {} skipped by the kernel and {} recovered from skips",
                account.seen,
                account.lost,
                account.skipped.map_or_else(|| "an unknown number".to_owned(), |count| count.to_string()),
                account.recovered,
            )),
            Err(error) => Finding::Missing(error),
        },
        cost: "events may be missing",
    }
}

/// The counts of the self-test.
struct Account {
    seen: u64,
    lost: u64,
    skipped: Option<u64>,
    recovered: u64,
}

fn trace_own_connection() -> Result<Account, String> {
    let options = KernelOptions { snapshot: false, ..KernelOptions::default() };
    let mut source = KernelSource::start(options).map_err(|error| error.to_string())?;
    let port = connect_on_loopback()
        .map_err(|error| format!("no connection could be made on 127.0.0.1: {error}"))?;
    let mut seen = 0;
    let deadline = Instant::now() + Duration::from_secs(2);
    while seen < SELF_TEST_TRANSITIONS && Instant::now() < deadline {
        let polled = source.poll(&mut |event| {
            if let Event::Transition(transition) = event {
                seen += u64::from(transition.local.port == port || transition.remote.port == port);
            }
        });
        polled.map_err(|error| format!("the records of the programs cannot be read: {error}"))?;
    }
    let counts = source.counts();
    Ok(Account { seen, lost: counts.lost, skipped: counts.skipped, recovered: counts.recovered })
}

/// Opens a loopback connection, closes it and its listener, and returns the listener's port.
fn connect_on_loopback() -> std::io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let client = TcpStream::connect(address)?;
    let (server, _) = listener.accept()?;
    drop(client);
    drop(server);
    Ok(address.port())
}

/// Dumps the existing sockets of all network namespaces, and searches their processes.
fn existing_sockets(visibility: &Visibility) -> Check {
    let mut found = existing();
    if visibility.hides_sockets() {
        found.problems.push("other network namespaces and processes are hidden from this process".to_owned());
    }
    let sockets = found.sockets.len() + found.minisocks.len();
    let dumped = format!("{sockets} in {} network namespaces", found.namespaces);
    Check {
        name: "existing sockets",
        finding: if found.problems.is_empty() {
            Finding::Found(dumped)
        } else {
            Finding::Missing(format!("only {dumped}: {}", found.problems.join("; ")))
        },
        cost: "connections that exist at the start, or their owners, are missing",
    }
}

/// Resolves cgroups through the cgroup v2 hierarchy.
fn cgroups() -> Check {
    let finding = match CgroupPaths::new(CgroupLimits::default(), Duration::ZERO) {
        Ok(paths) if paths.counts().truncated_walks > 0 => {
            Finding::Missing("the cgroup tree is larger than the cache".to_owned())
        }
        Ok(_) => Finding::Found("cgroup v2 hierarchy".to_owned()),
        Err(error) => Finding::Missing(error.to_string()),
    };
    Check { name: "cgroups", finding, cost: "cgroups and containers of some sockets are missing" }
}

/// Asks for the number of entries in the conntrack table of this network namespace.
fn conntrack_check() -> Check {
    Check {
        name: "conntrack",
        finding: match conntrack::probe() {
            Ok(entries) => {
                let entries = counted_as(entries, "entry", "entries");
                Finding::Found(format!("{entries} in this network namespace"))
            }
            Err(error) => Finding::Missing(error.to_string()),
        },
        cost: "`--backends` does not work",
    }
}

/// The attached hooks, each with its place in the kernel, and the refused ones.
type TriedHooks = (Vec<(Hook, &'static str)>, Vec<RefusedHook>);

/// Returns the check of an optional hook. `tried` is `None` when mode btf itself does not work.
fn hook_check(hook: Hook, tried: Option<&TriedHooks>) -> Check {
    Check {
        name: match hook {
            Hook::SynAckRetransmit => "hook syn_ack",
            Hook::FirstRead => "hook first_read",
            Hook::TimeWaitEnd => "hook fentry",
            Hook::Accept => "hook accept",
            Hook::ResetSent => "hook reset_sent",
            Hook::ResetReceived => "hook reset_received",
            Hook::Drop => "hook drop",
            Hook::AcceptQueueFull => "hook accept_queue_full",
            Hook::FirstWrite => "hook first_write",
        },
        finding: match tried {
            None => Finding::Missing("mode btf does not work".to_owned()),
            Some((attached, refused)) => match attached.iter().find(|(attached, _)| *attached == hook) {
                Some((_, target)) => Finding::Found(format!("attaches to {target}")),
                None => Finding::Missing(
                    refused
                        .iter()
                        .find(|refused| refused.hook == hook)
                        .map_or_else(|| "not attached".to_owned(), |refused| refused.error.to_string()),
                ),
            },
        },
        cost: hook.cost(),
    }
}

fn kernel_release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // The architecture of this program, because kernels before 6.1 have no file with theirs.
    format!("{} {}", release.trim(), env::consts::ARCH)
}
