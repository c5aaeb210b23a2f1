//! `--backends`: a router translates the address that the client dials, as kube-proxy does for a service, and the program in
//! the router's namespace names the backend.

use std::{fs, net::SocketAddr, process::Command};

use rstest::rstest;
use serde_json::Value;
use socket2::Socket;
use tcptrace_tests::{
    Connection, Namespace, Tracer,
    namespace::Inhabitant,
    program::{finds, program},
    sockets, speed, wait,
};

use crate::privileges::capabilities;

/// The addresses of one family.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    service: &'static str,
    server: &'static str,
}

const FOUR: Addresses = Addresses { service: "10.96.0.1", server: "10.72.2.2" };
const SIX: Addresses = Addresses { service: "fd00:96::1", server: "fd00:72:2::2" };

/// Ports of the service, and those that they are translated to.
const SERVICE: u16 = 443;
const BACKEND: u16 = 8443;
const SLOW_SERVICE: u16 = 444;
const SLOW_BACKEND: u16 = 8444;
const SILENT_SERVICE: u16 = 445;
const SILENT_BACKEND: u16 = 8445;

impl Addresses {
    fn at(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.service.parse().unwrap(), port)
    }

    fn backend(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.server.parse().unwrap(), port)
    }
}

/// A pod, its node, and the host of the backends.
struct Hosts {
    client: Namespace,
    router: Namespace,
    server: Namespace,
    _inhabitants: [Inhabitant; 2],
}

impl Hosts {
    /// Returns the hosts; none where the kernel cannot report translations.
    fn new() -> Option<Self> {
        if !finds("conntrack") {
            speed::not_possible("conntrack cannot be read");
            return None;
        }
        let router = Namespace::new();
        let (client, server) = (router.beside(), router.beside());
        let inhabitants = [client.inhabit(), server.inhabit()];
        let pids = inhabitants.each_ref().map(Inhabitant::id);
        router.sysctl("net.ipv4.ip_forward", "1");
        router.sysctl("net.ipv6.conf.all.forwarding", "1");
        for (host, network, pid) in [(&client, 1, pids[0]), (&server, 2, pids[1])] {
            router.ip(&format!("link add net{network} type veth peer name eth0 netns {pid}"));
            router.ip(&format!("addr add 10.72.{network}.1/24 dev net{network}"));
            router.ip(&format!("addr add fd00:72:{network}::1/64 dev net{network} nodad"));
            router.ip(&format!("link set net{network} up"));
            host.ip(&format!("addr add 10.72.{network}.2/24 dev eth0"));
            host.ip(&format!("addr add fd00:72:{network}::2/64 dev eth0 nodad"));
            host.ip("link set eth0 up");
            host.ip(&format!("route add default via 10.72.{network}.1"));
            host.ip(&format!("-6 route add default via fd00:72:{network}::1"));
            // A SYN is sent again after 1 s, and the connection fails after 3 s.
            host.sysctl("net.ipv4.tcp_syn_retries", "1");
            host.sysctl_if_there("net.ipv4.tcp_syn_linear_timeouts", "0");
        }
        for (family, addresses) in [("ip", FOUR), ("ip6", SIX)] {
            let Addresses { service, server } = addresses;
            let server = if family == "ip6" { format!("[{server}]") } else { server.to_owned() };
            let rules: String =
                [(SERVICE, BACKEND), (SLOW_SERVICE, SLOW_BACKEND), (SILENT_SERVICE, SILENT_BACKEND)]
                    .map(|(port, backend)| {
                        format!(
                            "add rule {family} services before {family} daddr {service} tcp dport {port} dnat to {server}:{backend}; "
                        )
                    })
                    .concat();
            let table = format!(
                "add table {family} services; \
                 add chain {family} services before {{ type nat hook prerouting priority -100; }}; {rules}"
            );
            router.command("nft", &[&table]);
        }
        // In a table of its own of the backends' host, so that the SYN has passed the node.
        server.filter(
            "input",
            &format!(
                "tcp dport {SLOW_BACKEND} tcp flags & (syn | ack) == syn limit rate 1/hour burst 1 packets drop
                 tcp dport {SILENT_BACKEND} drop"
            ),
        );
        Some(Self { client, router, server, _inhabitants: inhabitants })
    }

    fn listen(&self, at: SocketAddr) -> Socket {
        self.server.run("server", || sockets::listen(&at.to_string()))
    }

    /// Starts the program on the node, for the connections of the pod.
    fn start(&self, arguments: &[&str]) -> Tracer {
        let mut command = Command::new(program());
        command.args(arguments).args(["-o", "json", "--duration", "10m"]);
        command.args(["--netns", &self.client.inode().to_string()]);
        let tracer = self.router.run("tracer", || Tracer::spawn(&mut command));
        tracer.wait_for_stderr("tracing TCP in mode");
        tracer
    }

    fn connect(&self, to: SocketAddr) -> Socket {
        self.client.run("client", || sockets::connect(to))
    }

    /// Opens a connection, and closes it by a reset of the client.
    fn connect_and_reset(&self, listener: &Socket, to: SocketAddr) {
        let client = self.connect(to);
        let server = sockets::accept(listener);
        sockets::reset_on_close(&client);
        drop(client);
        sockets::wait_for_error(&server);
    }
}

#[track_caller]
fn assert_backend(row: &Connection, remote: SocketAddr, backend: Option<SocketAddr>) {
    let remote_of = (row.remote_address.clone(), row.remote_port);
    assert_eq!(remote_of, (Some(remote.ip().to_string()), Some(remote.port())), "{row:#?}");
    let backend = (backend.map(|it| it.ip().to_string()), backend.map(|it| it.port()));
    assert_eq!((row.backend_address.clone(), row.backend_port), backend, "{row:#?}");
}

#[rstest]
#[case::ipv4(FOUR)]
#[case::ipv6(SIX)]
fn the_backend_stands_beside_the_address_that_was_dialled(#[case] addresses: Addresses) {
    let Some(hosts) = Hosts::new() else { return };
    let backend = addresses.backend(BACKEND);
    let listener = hosts.listen(backend);
    // One that exists before the start.
    let existing = hosts.connect(addresses.at(SERVICE));
    let accepted = sockets::accept(&listener);
    let tracer = hosts.start(&["connections", "--backends"]);
    sockets::reset_on_close(&existing);
    drop(existing);
    sockets::wait_for_error(&accepted);
    hosts.connect_and_reset(&listener, addresses.at(SERVICE));
    hosts.connect_and_reset(&listener, backend);
    let rows: Vec<Connection> = tracer.rows(3);
    assert!(rows[0].incomplete, "{rows:#?}");
    assert_backend(&rows[0], addresses.at(SERVICE), Some(backend));
    assert_backend(&rows[1], addresses.at(SERVICE), Some(backend));
    assert_backend(&rows[2], backend, None);
}

#[test]
fn without_the_option_no_backend_is_named() {
    let Some(hosts) = Hosts::new() else { return };
    let listener = hosts.listen(FOUR.backend(BACKEND));
    let tracer = hosts.start(&["connections"]);
    hosts.connect_and_reset(&listener, FOUR.at(SERVICE));
    assert_backend(&tracer.rows::<Connection>(1)[0], FOUR.at(SERVICE), None);
}

/// A slow handshake and one that fails name the backend, and so does a replay.
#[test]
fn slow_and_failed_handshakes_name_the_backend() {
    let Some(hosts) = Hosts::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording.arrows");
    let file = file.to_str().unwrap();
    let mut command = Command::new(program());
    command.args(["record", file, "--backends", "--duration", "10m"]);
    let recorder = hosts.router.run("tracer", || Tracer::spawn(&mut command));
    recorder.wait_for_stderr("tracing TCP in mode");
    let live = hosts.start(&["handshakes", "--backends", "--by", "backend"]);
    let listeners = [BACKEND, SLOW_BACKEND].map(|port| hosts.listen(FOUR.backend(port)));
    hosts.connect_and_reset(&listeners[0], FOUR.at(SERVICE));
    hosts.connect_and_reset(&listeners[1], FOUR.at(SLOW_SERVICE));
    let failed = hosts.client.run("client", || sockets::try_connect(FOUR.at(SILENT_SERVICE))).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(libc::ETIMEDOUT));
    let live = live.interrupt();
    recorder.interrupt();
    let netns = hosts.client.inode().to_string();
    let replayed = Tracer::start_unready([
        "handshakes",
        "--by",
        "backend",
        "-o",
        "json",
        "--netns",
        &netns,
        "--input",
        file,
    ])
    .wait_for_exit();
    for (name, ended) in [("live", live), ("replayed", replayed)] {
        let rows: Vec<Value> = ended.rows();
        let mut groups: Vec<&str> = rows
            .iter()
            .filter(|row| row["type"] == "handshake_group")
            .map(|row| row["group"].as_str().unwrap())
            .collect();
        groups.sort_unstable();
        assert_eq!(groups, ["10.72.2.2:8443", "10.72.2.2:8444", "10.72.2.2:8445"], "{name}: {rows:#?}");
        let slow: Vec<&Value> = rows.iter().filter(|row| row["type"] == "handshake_slow").collect();
        for (port, backend) in
            [(SERVICE, BACKEND), (SLOW_SERVICE, SLOW_BACKEND), (SILENT_SERVICE, SILENT_BACKEND)]
        {
            let row = slow.iter().find(|row| row["remote_port"] == port).unwrap();
            assert_eq!(row["remote_address"], FOUR.service, "{name}");
            assert_eq!(row["backend_address"], FOUR.server, "{name}");
            assert_eq!(row["backend_port"], backend, "{name}");
            let story = row["story"].as_str().unwrap();
            assert!(story.ends_with(&format!("; backend 10.72.2.2:{backend}")), "{name}: {story}");
        }
    }
    let rows: Vec<Connection> =
        Tracer::start_unready(["connections", "-o", "json", "--netns", &netns, "--input", file])
            .wait_for_exit()
            .rows();
    let row = rows.iter().find(|row| row.remote_port == Some(SERVICE)).unwrap();
    assert_backend(row, FOUR.at(SERVICE), Some(FOUR.backend(BACKEND)));
}

/// A file after a rotation has the translations of open connections.
#[test]
fn a_rotated_recording_keeps_the_backends_of_open_connections() {
    let Some(hosts) = Hosts::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recording.arrows");
    let mut command = Command::new(program());
    command.arg("record").arg(&file).args(["--backends", "--rotate", "1s", "--duration", "10m"]);
    let recorder = hosts.router.run("tracer", || Tracer::spawn(&mut command));
    recorder.wait_for_stderr("tracing TCP in mode");
    let listener = hosts.listen(FOUR.backend(BACKEND));
    let client = hosts.connect(FOUR.at(SERVICE));
    let server = sockets::accept(&listener);
    let files = || {
        let mut files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().path()).collect();
        files.sort();
        files
    };
    let before = files().len();
    wait::until("two further files", || (files().len() >= before + 2).then_some(()));
    sockets::reset_on_close(&client);
    drop(client);
    sockets::wait_for_error(&server);
    recorder.interrupt();
    let netns = hosts.client.inode().to_string();
    let rows: Vec<Connection> = files()
        .iter()
        .flat_map(|file| {
            let input = file.to_str().unwrap();
            Tracer::start_unready(["connections", "-o", "json", "--netns", &netns, "--input", input])
                .wait_for_exit()
                .rows::<Connection>()
        })
        .filter(|row| row.remote_port == Some(SERVICE) && row.closed.is_some())
        .collect();
    let [row] = &rows[..] else { panic!("{rows:#?}") };
    assert_backend(row, FOUR.at(SERVICE), Some(FOUR.backend(BACKEND)));
}

/// An open subscription needs no capability, so none is kept.
#[test]
fn no_capability_is_kept() {
    let Some(hosts) = Hosts::new() else { return };
    let tracer = hosts.start(&["connections", "--backends"]);
    wait::until("the capabilities of every thread", || {
        let threads = fs::read_dir(format!("/proc/{}/task", tracer.id())).unwrap();
        let found: Vec<_> =
            threads.filter_map(|thread| capabilities(&thread.unwrap().path().join("status"))).collect();
        (found.len() >= 2 && found.iter().all(|it| *it == [0; 4])).then_some(())
    });
    tracer.interrupt();
}

#[test]
fn a_missing_capability_is_named() {
    if !finds("conntrack") {
        speed::not_possible("conntrack cannot be read");
        return;
    }
    let ended = Tracer::spawn(
        Command::new("setpriv").args(["--bounding-set=-net_admin", "--"]).arg(program()).arg("--backends"),
    )
    .wait_for_exit();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("CAP_NET_ADMIN"), "{}", ended.stderr);
}
