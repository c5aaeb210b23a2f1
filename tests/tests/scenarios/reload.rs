//! Reloads as systemd does them with `LoadCredential=`: the main process gets SIGHUP, and only it sees the files.

use std::{fs, os::unix::net::UnixDatagram, process::Command};

use rustix::process::Signal;
use tcptrace_tests::{Daemon, Namespace, Tracer, speed, wait};

use crate::support::{PASSWORD_CONFIG, next_notification};

/// Mounts an empty filesystem on the first argument, which only the started program sees, and makes its web.yml.
const WITH_CREDENTIALS: &str = r#"mount -t tmpfs tmpfs "$0" && : >"$0/web.yml" && exec "$@""#;

#[test]
fn main_process_reloads_files_that_no_other_process_sees() {
    let namespace = Namespace::new();
    let folder = tempfile::tempdir().unwrap();
    let credentials = folder.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let config = credentials.join("web.yml");
    let notify = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&notify).unwrap();
    systemd.set_read_timeout(Some(speed::limit())).unwrap();

    let program = Daemon::command(&namespace, &["--web-config", config.to_str().unwrap()]);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", WITH_CREDENTIALS])
        .arg(&credentials)
        .arg(program.get_program())
        .args(program.get_args())
        .env("NOTIFY_SOCKET", &notify);
    let daemon = Daemon::spawn(&mut command);
    assert!(next_notification(&systemd).expect("readiness").contains("READY=1"));
    assert_eq!(daemon.get("/healthz").unwrap().status, 200);
    // A process of ExecReload= would fail like this one.
    let arguments = ["serve", "--check", "--web-config", config.to_str().unwrap()];
    let check = Tracer::start_unready(arguments).wait_for_exit();
    assert_eq!(check.status.code(), Some(2), "{}", check.stderr);

    let inside = format!("/proc/{}/root{}", daemon.program.id(), config.display());
    let reload = |text: &str| {
        fs::write(&inside, text).unwrap();
        daemon.program.signal(Signal::HUP);
        next_notification(&systemd).expect("the result of the reload")
    };
    let status = reload(PASSWORD_CONFIG);
    assert!(status.contains("STATUS=tracing") && !status.contains("old configuration"), "{status}");
    assert_eq!(daemon.get("/healthz").unwrap().status, 401);
    let status = reload("basic_auth_users: {alice: broken}\n");
    let reason = "the old configuration stays: the password of `alice`";
    assert!(status.contains(reason), "{status}");
    wait::until("the log", || daemon.program.stderr().contains(reason).then_some(()));
    assert_eq!(daemon.get("/healthz").unwrap().status, 401);
}
