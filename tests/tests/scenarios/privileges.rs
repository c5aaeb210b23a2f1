//! The capabilities that a command keeps while it traces.

use std::{fs, path::Path};

use rstest::rstest;
use tcptrace_tests::{Tracer, wait};

/// `CAP_CHOWN` and `CAP_DAC_OVERRIDE`, the bits 0 and 1 (include/uapi/linux/capability.h).
const TO_CREATE_FILES: u64 = 0b11;

/// Returns the permitted, effective, inheritable and ambient capabilities of a thread, from its `status` file.
fn capabilities(status: &Path) -> [u64; 4] {
    let text = fs::read_to_string(status).unwrap();
    ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"].map(|field| {
        let value = text.lines().find_map(|line| line.strip_prefix(field));
        u64::from_str_radix(value.unwrap_or_else(|| panic!("no {field} in {text}")).trim(), 16).unwrap()
    })
}

/// Every thread has given up its capabilities when tracing begins, except those that the command still needs.
#[rstest]
#[case::connections(&["connections"], 0)]
#[case::serve(&["serve", "--listen", "127.0.0.1:0"], 0)]
#[case::record(&["record", "FILE"], 0)]
#[case::rotation(&["record", "FILE", "--rotate", "1h"], TO_CREATE_FILES)]
fn capabilities_end_when_tracing_begins(#[case] arguments: &[&str], #[case] kept: u64) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording.arrows");
    let arguments = arguments.iter().map(|&it| if it == "FILE" { file.as_os_str() } else { it.as_ref() });
    let tracer = Tracer::start(arguments.chain(["--duration".as_ref(), "10m".as_ref()]));
    let threads = wait::until("the tracing thread", || {
        let threads: Vec<_> = fs::read_dir(format!("/proc/{}/task", tracer.id())).unwrap().collect();
        (threads.len() >= 2).then_some(threads)
    });
    for thread in threads {
        let status = thread.unwrap().path().join("status");
        assert_eq!(capabilities(&status), [kept, kept, 0, 0], "{}", status.display());
    }
    tracer.interrupt();
}
