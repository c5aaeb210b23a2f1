//! Colors, and the width of messages on a terminal.

use std::process::Command;

use rstest::rstest;
use rustix::process::Signal;
use tcptrace_tests::{Namespace, Tracer, program::program, pty::Pty, wait};

use crate::support::open_and_reset;

/// Returns the text without styles.
fn stripped(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

/// Traces two connections on a terminal of 80 columns, and returns everything written to it.
fn on_a_terminal(variables: &[&str], options: &[&str]) -> String {
    let namespace = Namespace::new();
    let netns = namespace.inode().to_string();
    let mut command = Command::new("env");
    // A continuous integration shows colors whatever its terminal.
    command.args(["-u", "CI"]).args(variables).arg(program()).args([
        "connections",
        "--netns",
        &netns,
        "--duration",
        "10m",
    ]);
    command.args(options);
    let pty = Pty::start_command(80, 24, command);
    pty.wait_for("tracing TCP in mode");
    open_and_reset(&namespace);
    pty.wait_for("reset_by_peer");
    pty.signal(Signal::INT);
    let written = wait::until("the summary", || {
        let written = pty.written();
        // A line may break between any two words.
        let words = stripped(&written).split_whitespace().collect::<Vec<_>>().join(" ");
        words.contains(" 0 gaps").then_some(written)
    });
    let (status, screen) = pty.wait_for_exit();
    assert!(status.success(), "{status}: {screen}");
    written
}

#[rstest]
#[case::terminal(&[], &[], true)]
#[case::no_color(&["NO_COLOR=1"], &[], false)]
#[case::empty_no_color(&["NO_COLOR="], &[], true)]
#[case::dumb(&["TERM=dumb"], &[], false)]
#[case::never(&[], &["--color", "never"], false)]
#[case::asked_for(&["NO_COLOR=1"], &["--color", "always"], true)]
fn a_terminal_has_colors_unless_they_are_unwanted(
    #[case] variables: &[&str],
    #[case] options: &[&str],
    #[case] colored: bool,
) {
    let written = on_a_terminal(variables, options);
    if colored {
        for styled in ["\u{1b}[1mCLOSED", "\u{1b}[31mreset_by_peer\u{1b}[0m"] {
            assert!(written.contains(styled), "{styled:?} not in {written:?}");
        }
    } else {
        assert!(!written.contains('\u{1b}'), "{written:?}");
    }
}

#[test]
fn rows_and_messages_fit_the_terminal() {
    let written = stripped(&on_a_terminal(&[], &[]));
    let lines: Vec<&str> = written.split("\r\n").collect();
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{written}");
    let summary = lines.iter().position(|line| line.contains("transitions seen,")).unwrap();
    assert!(
        lines[summary].starts_with("tcptrace-bpf: ") && lines[summary + 1].starts_with("  "),
        "{written}"
    );
}

#[rstest]
#[case::a_pipe(&["-o", "wide"], false)]
#[case::a_pipe_that_asks_for_them(&["-o", "wide", "--color", "always"], true)]
fn a_pipe_has_colors_only_if_asked_and_the_columns_stay(#[case] options: &[&str], #[case] colored: bool) {
    let namespace = Namespace::new();
    let netns = namespace.inode().to_string();
    let fixed = ["--netns", &netns, "--duration", "10m"];
    let tracer = Tracer::start(fixed.into_iter().chain(options.iter().copied()));
    open_and_reset(&namespace);
    tracer.wait_for_lines(3);
    let ended = tracer.interrupt();
    let text = ended.text();
    assert_eq!(text.contains("\u{1b}[31mreset_by_peer\u{1b}[0m"), colored, "{text}");
    assert_eq!(text.contains('\u{1b}'), colored, "{text}");
    let plain = stripped(&text);
    let column = plain.lines().next().unwrap().find("REASON").unwrap();
    let mut reasons: Vec<&str> =
        plain.lines().skip(1).map(|line| line[column..].split(' ').next().unwrap()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["aborted", "reset_by_peer"], "{plain}");
}

#[test]
fn json_has_no_colors_even_if_asked() {
    let namespace = Namespace::new();
    let netns = namespace.inode().to_string();
    let tracer = Tracer::start(["-o", "json", "--color", "always", "--netns", &netns, "--duration", "10m"]);
    open_and_reset(&namespace);
    tracer.wait_for_lines(2);
    let ended = tracer.interrupt();
    assert!(!ended.text().contains('\u{1b}'), "{}", ended.text());
}

#[test]
fn help_and_errors_have_colors_if_asked() {
    let run = |arguments: &[&str]| Command::new(program()).args(arguments).output().unwrap();
    let escapes = |bytes: &[u8]| bytes.contains(&0x1b);
    assert!(escapes(&run(&["--color=always", "stuck", "-h"]).stdout));
    assert!(!escapes(&run(&["stuck", "-h"]).stdout));
    assert!(escapes(&run(&["stuck", "--color", "always", "--role", "client"]).stderr));
    let refused = run(&["completions", "bash", "--color", "always"]);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0));
}
