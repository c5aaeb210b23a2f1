//! The capabilities and the priority that a command keeps while it traces.

use std::{fs, path::Path};

use rstest::rstest;
use tcptrace_tests::{Tracer, program::finds, speed, wait};

/// `CAP_CHOWN` and `CAP_DAC_OVERRIDE`, the bits 0 and 1 (include/uapi/linux/capability.h).
const TO_CREATE_FILES: u64 = 0b11;

/// The nice value of the tracing thread, unless these tests run at a value of their own, which it keeps.
const RAISED: i32 = -10;

/// Returns the permitted, effective, inheritable and ambient capabilities of a thread, from its `status` file. None if the
/// thread has ended.
pub(crate) fn capabilities(status: &Path) -> Option<[u64; 4]> {
    let text = fs::read_to_string(status).ok()?;
    let capabilities = ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"].map(|field| {
        let value = text.lines().find_map(|line| line.strip_prefix(field));
        u64::from_str_radix(value.unwrap_or_else(|| panic!("no {field} in {text}")).trim(), 16).unwrap()
    });
    Some(capabilities)
}

/// Every thread has given up its capabilities when tracing begins, except those that the command still needs.
#[rstest]
#[case::connections(&["connections"], 0)]
#[case::listeners(&["listeners"], 0)]
#[case::serve(&["serve", "--listen", "127.0.0.1:0"], 0)]
#[case::record(&["record", "FILE"], 0)]
#[case::rotation(&["record", "FILE", "--rotate", "1h"], TO_CREATE_FILES)]
#[case::flight_recorder(&["record", "FILE", "--ring", "1M"], TO_CREATE_FILES)]
fn capabilities_end_when_tracing_begins(#[case] arguments: &[&str], #[case] kept: u64) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording.arrows");
    let arguments = arguments.iter().map(|&it| if it == "FILE" { file.as_os_str() } else { it.as_ref() });
    let tracer = Tracer::start(arguments.chain(["--duration".as_ref(), "10m".as_ref()]));
    // The kernel still lists a thread for a moment after it was joined.
    wait::until("the capabilities of every thread", || {
        let threads = fs::read_dir(format!("/proc/{}/task", tracer.id())).unwrap();
        let found: Vec<_> =
            threads.filter_map(|thread| capabilities(&thread.unwrap().path().join("status"))).collect();
        (found.len() >= 2 && found.iter().all(|it| *it == [kept, kept, 0, 0])).then_some(())
    });
    tracer.interrupt();
}

/// Returns the names of a process's threads and their nice values, from field 19 of proc_pid_stat(5).
fn nice_values(process: u32) -> Vec<(String, i32)> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")).ok());
    stats
        .map(|stat| {
            let (start, rest) = stat.rsplit_once(") ").unwrap();
            let (_, name) = start.split_once('(').unwrap();
            (name.to_owned(), rest.split(' ').nth(16).unwrap().parse().unwrap())
        })
        .collect()
}

/// Only the tracing thread runs ahead of other programs: a request over HTTP or a slow disk must not.
#[rstest]
#[case::connections(&["connections"])]
#[case::listeners(&["listeners"])]
#[case::serve(&["serve", "--listen", "127.0.0.1:0"])]
#[case::record(&["record", "FILE"])]
fn only_the_tracing_thread_has_a_raised_priority(#[case] arguments: &[&str]) {
    if !finds("reader priority") {
        speed::not_possible("the nice value of the reader cannot be lowered");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording.arrows");
    let arguments = arguments.iter().map(|&it| if it == "FILE" { file.as_os_str() } else { it.as_ref() });
    let own = rustix::process::getpriority_process(None).unwrap();
    let traces_at = if own == 0 { RAISED } else { own };
    let tracer = Tracer::start(arguments.chain(["--duration".as_ref(), "10m".as_ref()]));
    wait::until("the nice values", || {
        let values = nice_values(tracer.id());
        let right =
            |(name, value): &(String, i32)| *value == if name == "trace" { traces_at } else { own.max(0) };
        (values.iter().any(|(name, _)| name == "trace") && values.iter().all(right)).then_some(())
    });
    tracer.interrupt();
}
