//! Completes command lines in the real shells.
//!
//! Needs `bash`, `zsh` and `fish`; `cargo xtask test` installs them. Static builds skip these tests, because `cargo xtask vm`
//! runs them on machines without these shells.
#![cfg(not(target_feature = "crt-static"))]

use std::{path::Path, process::Command};

/// A command line whose last word is completed, some candidates, and some words that are none.
type Case = (&'static str, &'static [&'static str], &'static [&'static str]);

const CASES: [Case; 10] = [
    ("tcptrace-bpf st", &["stuck"], &["serve"]),
    ("tcptrace-bpf stuck --by ", &["process", "container", "port"], &["service"]),
    ("tcptrace-bpf handshakes --by ", &["service", "backend", "none"], &["port"]),
    ("tcptrace-bpf transitions --state cl", &["closed", "close_wait", "closing"], &["listen"]),
    ("tcptrace-bpf connections --mode ", &["auto", "btf", "tracepoint"], &["drop"]),
    ("tcptrace-bpf record --no-hook dr", &["drop"], &["accept"]),
    ("tcptrace-bpf stuck --threshold clo", &["close_wait=60s", "closing=10s"], &["syn_sent=3s"]),
    ("tcptrace-bpf serve --label k8s", &["k8s_namespace", "k8s_pod", "k8s_workload"], &["process"]),
    ("tcptrace-bpf compare --color ", &["auto", "always", "never"], &["btf"]),
    ("tcptrace-bpf doctor --o", &["--output"], &["--buffer"]),
];

/// Returns what a program prints.
fn output(package: &str, command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{}: {error}; Debian has it in the package {package}", command.get_program().display())
    });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).expect("candidates are UTF-8")
}

/// Writes the completions of a shell to a file.
fn install(shell: &str, file: &Path) {
    let script = output("", Command::new(env!("CARGO_BIN_EXE_tcptrace-bpf")).args(["completions", shell]));
    std::fs::write(file, script).expect("a temporary file is writable");
}

/// Checks what `candidates` returns for a line and the first of its expected candidates.
fn check(shell: &str, candidates: impl Fn(&str, &str) -> String) {
    for (line, offered, others) in CASES {
        let text = candidates(line, offered[0]);
        let words: Vec<&str> = text.split_whitespace().collect();
        for word in offered {
            assert!(words.contains(word), "{shell}: {line}: {word} not in {words:?}");
        }
        for word in others {
            assert!(!words.contains(word), "{shell}: {line}: {word} in {words:?}");
        }
    }
}

#[test]
fn bash_completes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tcptrace-bpf");
    install("bash", &file);
    let complete = r#"
        source "$1"
        read -ra COMP_WORDS <<<"$2"
        [[ $2 == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        function=$(complete -p tcptrace-bpf | grep --only-matching --perl-regexp '(?<=-F )\S+')
        "$function" tcptrace-bpf "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    check("bash", |line, _| {
        output("bash", Command::new("bash").args(["--norc", "-c", complete, "bash"]).arg(&file).arg(line))
    });
}

#[test]
fn fish_completes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tcptrace-bpf.fish");
    install("fish", &file);
    let complete = "source $argv[1]; complete --do-complete $argv[2]";
    check("fish", |line, _| {
        // The configuration of the user who runs the tests is not read.
        let text = output(
            "fish",
            Command::new("fish").env("HOME", folder.path()).args(["-c", complete]).arg(&file).arg(line),
        );
        // A tab separates a candidate from its description.
        text.lines().filter_map(|line| line.split('\t').next()).collect::<Vec<_>>().join("\n")
    });
}

#[test]
fn zsh_completes() {
    let folder = tempfile::tempdir().unwrap();
    install("zsh", &folder.path().join("_tcptrace-bpf"));
    // Completion works only in an interactive shell, which zsh starts in a terminal of its own.
    let complete = r#"
        zmodload zsh/zpty
        zpty shell zsh -f -i
        say() { zpty -w shell "$1" }
        say "PROMPT= RPROMPT= TERM=dumb; stty -echo; LISTMAX=10000; unsetopt zle_bracketed_paste; fpath=($1 \$fpath)"
        say "zstyle ':completion:*' verbose no"
        say 'autoload -Uz compinit; compinit -u -D; bindkey "^I" list-choices; echo rea""dy'
        zpty -r shell text '*ready*'
        zpty -w -n shell "$2"$'\t'
        # Input that follows at once would keep zsh from showing the list.
        zpty -r shell listed "*$3*"
        zpty -w -n shell $'\x15'
        say 'echo do""ne'
        zpty -r shell rest '*done*'
        print -r -- "$listed$rest"
    "#;
    check("zsh", |line, candidate| {
        // Without the candidate, zsh would wait for it forever.
        let mut limited = Command::new("timeout");
        limited.args(["60", "zsh", "-f", "-c", complete, "zsh"]).arg(folder.path()).args([line, candidate]);
        output("zsh", &mut limited)
    });
}
