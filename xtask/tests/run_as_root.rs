//! Tests which programs the runner of `.cargo/config.toml` starts under sudo.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports a failure")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A folder with an `id` that reports an unprivileged user, and optionally a `sudo` that prints its
/// arguments.
struct Machine(PathBuf);

impl Machine {
    fn new(name: &str, with_sudo: bool) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let machine = Self(folder);
        machine.program("id", "echo 1000");
        if with_sudo {
            machine.program("sudo", r#"echo "sudo $*""#);
        }
        for program in ["tcptrace-bpf", "kernel-0123", "xtask"] {
            machine.program(program, r#"echo "plain $*""#);
        }
        machine
    }

    fn program(&self, name: &str, body: &str) {
        let path = self.0.join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, package: &str, program: &str, arguments: &[&str]) -> Output {
        Command::new("/bin/sh")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/run-as-root.sh"))
            .arg(self.0.join(program))
            .args(arguments)
            .env("PATH", &self.0)
            .env("CARGO_PKG_NAME", package)
            .output()
            .unwrap()
    }

    /// Returns how the program was started: `sudo` or `plain`.
    fn launch(&self, package: &str, program: &str, arguments: &[&str]) -> String {
        let output = self.run(package, program, arguments);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        for argument in arguments {
            assert!(text.contains(argument), "{argument} is missing: {text}");
        }
        text.split_whitespace().next().unwrap_or_default().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn tracing_and_kernel_tests_run_as_root() {
    let machine = Machine::new("root", true);
    assert_eq!(machine.launch("tcptrace-bpf", "tcptrace-bpf", &[]), "sudo");
    assert_eq!(machine.launch("tcptrace-bpf", "tcptrace-bpf", &["top", "--duration", "1s"]), "sudo");
    assert_eq!(machine.launch("tcptrace-tests", "kernel-0123", &["--nocapture"]), "sudo");
}

#[test]
fn other_programs_run_without_root() {
    let machine = Machine::new("plain", true);
    assert_eq!(machine.launch("tcptrace-bpf", "kernel-0123", &[]), "plain");
    assert_eq!(machine.launch("xtask", "xtask", &["test"]), "plain");
    for arguments in [&["--help"][..], &["top", "-h"], &["--version"], &["-i", "file"], &["--input=file"]] {
        assert_eq!(machine.launch("tcptrace-bpf", "tcptrace-bpf", arguments), "plain");
    }
}

#[test]
fn missing_sudo_is_reported_with_a_remedy() {
    let output = Machine::new("none", false).run("tcptrace-bpf", "tcptrace-bpf", &[]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        message,
        "tcptrace-bpf needs root, and sudo is not installed: install sudo, or run the same cargo command as root\n"
    );
}
