//! How the program starts and exits.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    process::{Command, Stdio},
};

use rstest::rstest;
use rustix::process::Signal;
use tcptrace_tests::{Connection, Mode, Namespace, Tracer, program::program, tracer, wait};

use crate::support::open_and_reset;

#[rstest]
fn signals_stop_the_program_successfully(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values("INT", "TERM")] signal: &str,
) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    open_and_reset(&namespace);
    tracer.signal(if signal == "INT" { Signal::INT } else { Signal::TERM });
    let ended = tracer.wait_for_exit();
    assert_eq!((ended.status.code(), ended.status.signal()), (Some(0), None), "{}", ended.stderr);
    // Rows of earlier events are written before the exit.
    assert_eq!(ended.rows::<Connection>().len(), 2);
    let summary = ended.summary();
    assert!(summary.seen >= 6, "{summary:?}");
    assert_eq!(summary.lost, 0);
}

#[rstest]
fn row_count_stops_the_program(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::json("transitions", &namespace, mode, &["-n", "3"]);
    open_and_reset(&namespace);
    let ended = tracer.wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.text().lines().count(), 3, "{}", ended.text());
    ended.summary();
}

#[rstest]
fn duration_stops_the_program(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let netns = namespace.inode().to_string();
    let ended = Tracer::start(["-o", "json", "--mode", mode.name(), "--netns", &netns, "-d", "300ms"])
        .wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.text(), "");
    ended.summary();
}

/// As with `| head -n 1`: the reader closes the pipe, and the program exits without an error message.
#[rstest]
fn closed_stdout_stops_the_program_without_an_error(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let mut child = Command::new(program())
        .args(tracer::arguments("transitions", "json", &namespace, mode))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("tracing TCP in mode"), "{line}");
    open_and_reset(&namespace);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    assert!(first.starts_with("{\"type\":\"transition\""), "{first}");
    drop(stdout);
    open_and_reset(&namespace);
    let status = wait::until("the program to exit", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    let rest: Vec<String> = stderr.lines().map(Result::unwrap).collect();
    let [summary] = &rest[..] else { panic!("more than the summary: {rest:?}") };
    assert!(summary.contains("transitions seen"), "{summary}");
}

#[rstest]
#[case::option(&["--frobnicate"], "--frobnicate")]
#[case::command(&["frobnicate"], "frobnicate")]
#[case::port(&["--local-port", "70000"], "70000")]
#[case::family(&["-4", "-6"], "cannot be used with")]
#[case::count(&["-n", "0"], "0")]
fn invalid_usage_exits_with_status_2(#[case] arguments: &[&str], #[case] named: &str) {
    let ended = Tracer::start_unready(arguments).wait_for_exit();
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains(named), "{}", ended.stderr);
    assert_eq!(ended.text(), "");
}

/// Without privileges the program prints one line with the missing capabilities and the remedy.
#[test]
fn missing_capabilities_are_named() {
    // The program must not read the build directory, which may be in a home directory that other users cannot
    // read.
    let ended = Tracer::spawn(
        Command::new("setpriv")
            .args(["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--"])
            .arg(program()),
    )
    .wait_for_exit();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert_eq!(ended.text(), "");
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    for part in ["CAP_BPF", "CAP_PERFMON", "sudo tcptrace-bpf"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}
