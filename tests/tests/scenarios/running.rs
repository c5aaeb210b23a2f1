//! How the program starts and ends.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    process::{Command, Stdio},
};

use rstest::rstest;
use rustix::process::Signal;
use tcptrace_tests::{
    Connection, Mode, Namespace, Tracer,
    program::program,
    sockets::{self, Pair},
    wait,
};

/// Opens and resets a connection: two lines at once.
fn visit(namespace: &Namespace) {
    let Pair { client, server, listener: _listener } = sockets::pair(namespace, "127.0.0.1:0");
    sockets::reset_on_close(&client);
    drop(client);
    sockets::wait_for_error(&server);
}

#[rstest]
fn signals_end_it_well(
    #[values(Mode::Btf, Mode::Tracepoint)] mode: Mode,
    #[values("INT", "TERM")] signal: &str,
) {
    let namespace = Namespace::new();
    let tracer = Tracer::connections(&namespace, mode);
    visit(&namespace);
    tracer.signal(if signal == "INT" { Signal::INT } else { Signal::TERM });
    let ended = tracer.wait_for_end();
    assert_eq!((ended.status.code(), ended.status.signal()), (Some(0), None), "{}", ended.stderr);
    // What had happened before is not lost with the end.
    assert_eq!(ended.rows::<Connection>().len(), 2);
    let summary = ended.summary();
    assert!(summary.seen >= 6, "{summary:?}");
    assert_eq!(summary.lost, 0);
}

#[rstest]
fn the_count_ends_it(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let tracer = Tracer::json("transitions", &namespace, mode, &["-n", "3"]);
    visit(&namespace);
    let ended = tracer.wait_for_end();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.text().lines().count(), 3, "{}", ended.text());
    ended.summary();
}

#[rstest]
fn the_duration_ends_it(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let netns = namespace.inode().to_string();
    let ended =
        Tracer::start(["-o", "json", "--mode", mode.name(), "--netns", &netns, "-d", "300ms"]).wait_for_end();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.text(), "");
    ended.summary();
}

/// As under `| head -n 1`: the reader goes away, with nothing to complain about.
#[rstest]
fn a_reader_that_goes_away_ends_it_quietly(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    let netns = namespace.inode().to_string();
    let mut child = Command::new(program())
        .args(["transitions", "-o", "json", "--mode", mode.name(), "--netns", &netns, "--duration", "10m"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("tracing TCP in mode"), "{line}");
    visit(&namespace);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    assert!(first.starts_with("{\"type\":\"transition\""), "{first}");
    drop(stdout);
    visit(&namespace);
    let status = wait::until("the end of the program", || child.try_wait().unwrap());
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
fn wrong_usage_has_status_2(#[case] arguments: &[&str], #[case] named: &str) {
    let ended = Tracer::start_unready(arguments).wait_for_end();
    assert_eq!(ended.status.code(), Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains(named), "{}", ended.stderr);
    assert_eq!(ended.text(), "");
}

/// Without privileges: one sentence with what is missing and what to do.
#[test]
fn missing_capabilities_are_named() {
    // It must not need to read the build directory, which may be in a home that is closed to others.
    let ended = Tracer::spawn(
        Command::new("setpriv")
            .args(["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--"])
            .arg(program()),
    )
    .wait_for_end();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert_eq!(ended.text(), "");
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    for part in ["CAP_BPF", "CAP_PERFMON", "sudo tcptrace-bpf"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}
