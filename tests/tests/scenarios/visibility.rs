//! What the program says when its namespaces hide a part of the host.

use std::{net::Shutdown, path::Path, process::Command};

use rstest::rstest;
use serde_json::Value;
use tcptrace_tests::{
    Connection, Daemon, Namespace, Tracer,
    cgroup::TestCgroup,
    namespace::Inhabitant,
    program::{finds, program},
    sockets::{self, Pair},
    speed, wait,
};

use crate::support::open_and_reset;

/// A new pid namespace with a `/proc` of its own, like that of a container.
const PID: &[&str] = &["--pid", "--fork", "--kill-child", "--mount-proc"];

/// Returns the command that runs the program in new namespaces; without any, on the host.
fn command(namespaces: &[&str]) -> Command {
    let Some(_) = namespaces.first() else { return Command::new(program()) };
    let mut command = Command::new("unshare");
    command.args(namespaces).arg(program());
    command
}

fn start(namespaces: &[&str], arguments: &[&str], namespace: &Namespace) -> Tracer {
    Tracer::spawn(command(namespaces).args(arguments).args([
        "-o",
        "json",
        "--netns",
        &namespace.inode().to_string(),
    ]))
}

/// Returns whether the tests themselves see the whole host, without which a notice is right.
fn on_host() -> bool {
    let whole = ["pid namespace", "network namespace", "cgroup namespace"].into_iter().all(finds);
    if !whole {
        speed::not_possible("the tests run in a container");
    }
    whole
}

fn has_user_namespaces() -> bool {
    let has = Path::new("/proc/self/ns/user").exists();
    if !has {
        speed::not_possible("it has no user namespaces");
    }
    has
}

/// A connection in CLOSE_WAIT that exists before the program starts.
struct Hung {
    _open: (Pair, Inhabitant),
}

fn hang(namespace: &Namespace) -> Hung {
    let inhabitant = namespace.inhabit();
    let pair = sockets::pair(namespace, "127.0.0.1:0");
    pair.client.shutdown(Shutdown::Write).unwrap();
    sockets::wait_for_end(&pair.server);
    wait::until("CLOSE_WAIT", || (namespace.sockets_in(sockets::CLOSE_WAIT) == 1).then_some(()));
    Hung { _open: (pair, inhabitant) }
}

const STUCK: &[&str] = &["stuck", "--threshold", "close_wait=1ms"];

#[test]
fn stuck_says_that_a_pid_namespace_hides_sockets() {
    if !on_host() {
        return;
    }
    let namespace = Namespace::new();
    let _hung = hang(&namespace);
    // The kernel's timers, which bound the age, have a resolution of milliseconds.
    wait::until("the connection on the host", || {
        let ended = start(&[], STUCK, &namespace).wait_for_exit();
        assert!(!ended.stderr.contains("not in the host's"), "{}", ended.stderr);
        assert!(!ended.stderr.contains("hidden"), "{}", ended.stderr);
        (ended.line_count() == 2).then_some(())
    });
    let ended = start(PID, STUCK, &namespace).wait_for_exit();
    assert_eq!((ended.status.code(), ended.line_count()), (Some(0), 0), "{}", ended.stderr);
    for part in [
        "not in the host's pid namespace: ",
        "--pid=host",
        "hostPID: true",
        "others are hidden from this process",
    ] {
        assert!(ended.stderr.contains(part), "{part} not in: {}", ended.stderr);
    }
    let both = start(&[PID, &["--net"]].concat(), STUCK, &namespace).wait_for_exit();
    assert!(both.stderr.contains("not in the host's pid and network namespaces: "), "{}", both.stderr);
    // A trace says it once.
    let traced = start(PID, &[STUCK, &["-d", "100ms"]].concat(), &namespace).wait_for_exit();
    assert_eq!(traced.stderr.matches("not in the host's pid namespace").count(), 1, "{}", traced.stderr);
}

/// `/proc` leads to every network namespace, so one of its own hides nothing from the program.
#[test]
fn a_network_namespace_alone_hides_nothing() {
    if !on_host() {
        return;
    }
    let namespace = Namespace::new();
    let _hung = hang(&namespace);
    wait::until("the connection", || {
        let ended = start(&["--net"], STUCK, &namespace).wait_for_exit();
        assert!(!ended.stderr.contains("not in the host's"), "{}", ended.stderr);
        (ended.line_count() == 2).then_some(())
    });
}

/// Events come from the kernel, whichever namespaces the program is in.
#[rstest]
#[case::on_the_host(&[], None)]
#[case::pid(PID, Some("not in the host's pid namespace: "))]
#[case::pid_and_network(
    &[PID[0], PID[1], PID[2], PID[3], "--net"],
    Some("not in the host's pid and network namespaces: ")
)]
#[case::network(&["--net"], None)]
fn new_connections_are_seen_and_what_is_hidden_is_named(
    #[case] namespaces: &[&str],
    #[case] notice: Option<&str>,
) {
    if !on_host() {
        return;
    }
    let namespace = Namespace::new();
    let tracer = start(namespaces, &["connections", "-n", "2", "-d", "1m"], &namespace);
    tracer.wait_for_stderr("tracing TCP in mode");
    open_and_reset(&namespace);
    let ended = tracer.wait_for_exit();
    assert_eq!(ended.rows::<Connection>().len(), 2, "{}", ended.stderr);
    match notice {
        Some(notice) => {
            let lines: Vec<_> =
                ended.stderr.lines().filter(|line| line.contains("not in the host's")).collect();
            let [line] = &lines[..] else { panic!("{}", ended.stderr) };
            assert!(line.contains(notice), "{line}");
        }
        None => assert!(!ended.stderr.contains("not in the host's"), "{}", ended.stderr),
    }
}

#[test]
fn listeners_say_at_their_end_that_others_are_hidden() {
    if !on_host() {
        return;
    }
    let namespace = Namespace::new();
    let incomplete = "the list of listeners is incomplete: other network namespaces are hidden";
    for (namespaces, hidden) in [(PID, true), (&[], false)] {
        let ended = Tracer::spawn(command(namespaces).args(["listeners", "-d", "100ms"])).wait_for_exit();
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert_eq!(ended.stderr.contains(incomplete), hidden, "{}", ended.stderr);
    }
    drop(namespace);
}

#[test]
fn the_daemon_logs_and_exports_what_is_hidden() {
    if !on_host() {
        return;
    }
    let namespace = Namespace::new();
    let netns = namespace.inode().to_string();
    for (namespaces, seen) in [(&[][..], 1.0), (PID, 0.0)] {
        let mut command = command(namespaces);
        command.args(["serve", "--netns", &netns, "--listen", "127.0.0.1:0", "--duration", "10m"]);
        let daemon = Daemon::spawn(&mut command);
        daemon.wait_for(r#"tcptrace_host_visible{namespace="pid"}"#, seen);
        assert_eq!(daemon.value(r#"tcptrace_host_visible{namespace="network"}"#), Some(1.0));
        let log = daemon.program.stderr();
        assert_eq!(log.contains("not in the host's pid namespace"), seen == 0.0, "{log}");
    }
}

/// Returns a check of `doctor`: whether it is found, its detail, and its cost.
fn check(command: &mut Command, name: &str) -> (bool, String, Option<String>) {
    let ended = Tracer::spawn(command).wait_for_exit();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let rows = ended.rows::<Value>();
    let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name} in {rows:#?}"));
    let text = |key: &str| row[key].as_str().map(str::to_owned);
    (row["found"] == true, text("detail").unwrap(), text("cost"))
}

#[rstest]
#[case::host_pid(&[], "pid namespace", true, "the host's")]
#[case::host_network(&[], "network namespace", true, "the host's")]
#[case::host_user(&[], "user namespace", true, "the host's")]
#[case::host_cgroup(&[], "cgroup namespace", true, "the host's")]
#[case::pid(PID, "pid namespace", false, "--pid=host (Kubernetes: hostPID: true)")]
#[case::pid_network(PID, "network namespace", true, "the host's")]
#[case::pid_sockets(PID, "existing sockets", false, "hidden from this process")]
#[case::pid_of_outer_proc(&["--pid", "--fork", "--kill-child"], "pid namespace", true, "lists the host's processes")]
#[case::network(&["--net"], "network namespace", true, "the others are found through /proc")]
#[case::both(
    &[PID[0], PID[1], PID[2], PID[3], "--net"],
    "network namespace",
    false,
    "is not the host's, and /proc shows no other"
)]
#[case::user(&["--user", "--map-root-user"], "user namespace", false, "do not permit eBPF")]
fn doctor_names_each_namespace(
    #[case] namespaces: &[&str],
    #[case] name: &str,
    #[case] found: bool,
    #[case] detail: &str,
) {
    if !on_host() || (namespaces.contains(&"--user") && !has_user_namespaces()) {
        return;
    }
    let (is_found, its_detail, cost) = check(command(namespaces).args(["doctor", "-o", "json"]), name);
    assert_eq!((is_found, cost.is_some()), (found, !found), "{its_detail}");
    assert!(its_detail.contains(detail), "{its_detail}");
}

/// A container has a cgroup namespace, and its own part of the hierarchy mounted.
#[test]
fn doctor_names_a_part_of_the_cgroup_hierarchy() {
    if !on_host() {
        return;
    }
    let cgroup = TestCgroup::new("container");
    let mount = cgroup.directory().parent().unwrap();
    let script = "echo $$ > \"$1/cgroup.procs\" && exec unshare --cgroup --mount sh -c \
                  'umount -l \"$1\" && mount -t cgroup2 none \"$1\" && exec \"$2\" doctor -o json' sh \"$2\" \"$3\"";
    let in_container = |program: &Path| {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(cgroup.directory()).arg(mount).arg(program);
        command
    };
    let (found, detail, cost) = check(&mut in_container(program()), "cgroup namespace");
    assert_eq!((found, cost.is_some()), (false, true), "{detail}");
    assert!(detail.contains("is not the host's") && detail.contains("--cgroupns=host"), "{detail}");
}

/// Root of a user namespace has every capability there, and none that permits eBPF.
#[test]
fn a_user_namespace_is_named_as_the_reason() {
    if !on_host() || !has_user_namespaces() {
        return;
    }
    let namespace = Namespace::new();
    let ended = start(&["--user", "--map-root-user"], &["connections"], &namespace).wait_for_exit();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    for part in ["user namespace", "is not the host's", "Docker: --userns=host"] {
        assert!(ended.stderr.contains(part), "{part} not in: {}", ended.stderr);
    }
}
