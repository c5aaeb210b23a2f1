//! What the programs read from the kernel's structures, in both modes. Each test makes the kernel set a field and looks at
//! the events. Needs root and fails without it.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::{
    io::Write as _,
    net::{Ipv4Addr, Shutdown, SocketAddr},
    os::fd::AsRawFd as _,
    thread,
    time::Duration,
};

use rstest::rstest;
use socket2::Socket;
use tcptrace_bpf::sources::{
    Source as _,
    live::{KernelOptions, KernelSource, Mode, ModeChoice},
};
use tcptrace_tests::{ChildProcess, Namespace, process, sockets, wait};
use tracer_core::event::{
    Event, Netns, SocketCookie,
    TcpState::{
        self, CloseWait, Closed, Established, FinWait1, FinWait2, LastAck, Listen, SynReceived, SynSent,
    },
    ThreadName, Transition,
};

/// The events of a namespace.
struct Traced {
    events: Vec<Event>,
}

impl Traced {
    /// Does `work` in a namespace and returns what the kernel reported of it.
    fn of(mode: Mode, namespace: &Namespace, work: impl FnOnce() + Send) -> Self {
        let options = KernelOptions {
            mode: ModeChoice::Only(mode),
            only_netns: Some(Netns(namespace.inode())),
            snapshot: false,
            ..KernelOptions::default()
        };
        let mut source = KernelSource::start(options).unwrap();
        let mut events = Vec::new();
        thread::scope(|scope| {
            let done = scope.spawn(work);
            while !done.is_finished() {
                source.poll(&mut |event| events.push(*event)).unwrap();
            }
            done.join().unwrap();
        });
        source.finish(&mut |event| events.push(*event)).unwrap();
        Self { events }
    }

    fn transitions(&self, from: TcpState, to: TcpState) -> Vec<Transition> {
        let transitions = self.events.iter().filter_map(|event| match event {
            Event::Transition(transition) => Some(*transition),
            _ => None,
        });
        transitions.filter(|transition| (transition.from, transition.to) == (from, to)).collect()
    }

    /// The only transition between these states.
    fn only(&self, from: TcpState, to: TcpState) -> Transition {
        match self.transitions(from, to)[..] {
            [transition] => transition,
            ref others => panic!("{} from {from:?} to {to:?}: {:#?}", others.len(), self.events),
        }
    }

    /// Of each resent SYN-ACK, whether the client's ACK had come.
    fn acked(&self) -> Vec<bool> {
        let acked = self.events.iter().filter_map(|event| match event {
            Event::SynAckRetransmit(event) => Some(event.acked),
            _ => None,
        });
        acked.collect()
    }
}

fn set(socket: &Socket, level: i32, option: i32, value: i32) {
    // SAFETY: the value lives across the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<i32>().try_into().unwrap(),
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn get(socket: &Socket, level: i32, option: i32) -> u64 {
    let mut value = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: value and length live across the call.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut length)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    value
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

#[rstest]
#[case::btf(Mode::Btf)]
#[case::tracepoint(Mode::Tracepoint)]
fn data_segments_are_counted_at_close(#[case] mode: Mode) {
    let namespace = Namespace::new();
    let traced = Traced::of(mode, &namespace, || {
        namespace.run("ends", || {
            let listener = sockets::listen("127.0.0.1:0");
            let client = sockets::connect(loopback(sockets::port(&listener)));
            let server = sockets::accept(&listener);
            sockets::send(&server, b"first");
            sockets::receive(&client, 5);
            client.shutdown(Shutdown::Write).unwrap();
            // Otherwise the acknowledgement of the FIN might come with the data.
            wait::until("FIN_WAIT2", || (namespace.sockets_in(sockets::FIN_WAIT_2) == 1).then_some(()));
            sockets::send(&server, b"second");
            sockets::receive(&client, 6);
            drop(client);
            drop(server);
        });
    });
    let segments = |from, to| traced.only(from, to).data_segments;
    assert_eq!(segments(Established, FinWait1), None, "the application still receives");
    assert_eq!(segments(FinWait1, FinWait2), None);
    assert_eq!(segments(FinWait2, FinWait2), Some(2), "close() after shutdown()");
    assert_eq!(segments(CloseWait, LastAck), None);
    assert_eq!(segments(FinWait2, Closed), None, "there it is among the statistics");
}

#[rstest]
#[case::btf(Mode::Btf)]
#[case::tracepoint(Mode::Tracepoint)]
fn a_bound_interface_is_known(#[case] mode: Mode) {
    let namespace = Namespace::new();
    let traced = Traced::of(mode, &namespace, || {
        namespace.run("ends", || {
            let bound = |socket: &Socket| socket.bind_device(Some(b"lo")).unwrap();
            let listener = sockets::listen_with("127.0.0.1:0", 8, bound);
            let to = loopback(sockets::port(&listener));
            let client = sockets::tcp(to);
            bound(&client);
            client.connect(&to.into()).unwrap();
            let _server = sockets::accept(&listener);
            drop(listener);
            let free = sockets::listen("127.0.0.2:0");
            drop(sockets::connect(sockets::local(&free)));
        });
    });
    let interfaces = |from, to| -> Vec<_> {
        traced.transitions(from, to).iter().map(|transition| transition.interface).collect()
    };
    // The index of `lo` in each namespace.
    assert_eq!(interfaces(Closed, SynSent), [Some(1), None]);
    assert_eq!(interfaces(SynSent, Established), [None, None], "it does not change");
    assert_eq!(interfaces(Listen, SynReceived), [None, None], "up to 6.14 it is the listener's");
    assert_eq!(interfaces(SynReceived, Established), [Some(1), None]);
    assert!(interfaces(Established, FinWait1).iter().all(Option::is_none));
}

/// `TCP_REPAIR`, `TCP_REPAIR_QUEUE` and `TCP_QUEUE_SEQ`.
const REPAIR: i32 = 19;
const QUEUE: i32 = 20;
const SEQUENCE: i32 = 21;

#[rstest]
#[case::btf(Mode::Btf)]
#[case::tracepoint(Mode::Tracepoint)]
fn a_socket_in_repair_is_marked(#[case] mode: Mode) {
    let namespace = Namespace::new();
    let traced = Traced::of(mode, &namespace, || {
        namespace.run("ends", || {
            let listener = sockets::listen("127.0.0.1:0");
            let client = sockets::connect(sockets::local(&listener));
            let server = sockets::accept(&listener);
            drop(listener);
            let ends = (sockets::local(&server), sockets::local(&client));
            sockets::set_tcp_option(&server, REPAIR, 1);
            let sequences = [1, 2].map(|queue| {
                sockets::set_tcp_option(&server, QUEUE, queue);
                u32::try_from(get(&server, libc::IPPROTO_TCP, SEQUENCE)).unwrap().cast_signed()
            });
            drop(server);
            let restored = sockets::tcp(ends.0);
            restored.set_reuse_address(true).unwrap();
            sockets::set_tcp_option(&restored, REPAIR, 1);
            restored.bind(&ends.0.into()).unwrap();
            for (queue, sequence) in [1, 2].into_iter().zip(sequences) {
                sockets::set_tcp_option(&restored, QUEUE, queue);
                sockets::set_tcp_option(&restored, SEQUENCE, sequence);
            }
            restored.connect(&ends.1.into()).unwrap();
        });
    });
    let repaired = |from, to| -> Vec<_> {
        traced.transitions(from, to).iter().map(|transition| transition.flags.unwrap().repair).collect()
    };
    assert!(repaired(Established, Closed)[0], "dumped");
    assert_eq!(repaired(SynSent, Established), [false, true], "connected, restored");
    assert_eq!(repaired(SynReceived, Established), [false]);
}

#[rstest]
#[case::btf(Mode::Btf)]
#[case::tracepoint(Mode::Tracepoint)]
fn a_negative_linger2_is_marked(#[case] mode: Mode) {
    let namespace = Namespace::new();
    let traced = Traced::of(mode, &namespace, || {
        namespace.run("ends", || {
            let listener = sockets::listen("127.0.0.1:0");
            for linger in [-1, 5] {
                let client = sockets::connect(sockets::local(&listener));
                let server = sockets::accept(&listener);
                sockets::set_tcp_option(&client, libc::TCP_LINGER2, linger);
                drop(client);
                sockets::wait_for_end(&server);
                // The client's kernel keeps no socket where it is negative, so what is sent now is reset.
                let _ = (&server).write(b"late");
            }
        });
    });
    let negative: Vec<_> = traced
        .transitions(FinWait2, Closed)
        .iter()
        .chain(&traced.transitions(FinWait1, Closed))
        .map(|transition| transition.flags.unwrap().linger2_negative)
        .collect();
    assert_eq!(negative, [true, false]);
}

/// `TCP_FASTOPEN_CONNECT`.
const FAST_OPEN_CONNECT: i32 = 30;

#[rstest]
#[case::btf(Mode::Btf)]
#[case::tracepoint(Mode::Tracepoint)]
fn a_deferred_syn_is_marked(#[case] mode: Mode) {
    let namespace = Namespace::new();
    // Without cookies, for clients (5) and servers (0x602).
    namespace.sysctl("net.ipv4.tcp_fastopen", "1543");
    let traced = Traced::of(mode, &namespace, || {
        namespace.run("ends", || {
            let listener = sockets::listen_with("127.0.0.1:0", 8, |socket| {
                sockets::set_tcp_option(socket, libc::TCP_FASTOPEN, 8);
            });
            let to = sockets::local(&listener);
            let begin = |option| {
                let client = sockets::tcp(to);
                sockets::set_tcp_option(&client, FAST_OPEN_CONNECT, option);
                client.connect(&to.into()).unwrap();
                client
            };
            drop((begin(0), sockets::accept(&listener)));
            let client = begin(1);
            sockets::send(&client, b"first");
            sockets::receive(&sockets::accept(&listener), 5);
            drop(client);
            drop(begin(1));
        });
    });
    let deferred = |from, to| -> Vec<_> {
        let transitions = traced.transitions(from, to);
        transitions.iter().map(|transition| transition.flags.unwrap().fast_open_deferred).collect()
    };
    assert_eq!(deferred(SynSent, Established), [false, true]);
    assert_eq!(deferred(SynSent, Closed), [true], "closed without a write");
}

#[rstest]
#[case::btf(Mode::Btf)]
#[case::tracepoint(Mode::Tracepoint)]
fn a_deferred_accept_is_marked(#[case] mode: Mode) {
    let namespace = Namespace::new();
    let traced = Traced::of(mode, &namespace, || {
        namespace.run("ends", || {
            for seconds in [0, 1] {
                let listener = sockets::listen_with("127.0.0.1:0", 8, |socket| {
                    sockets::set_tcp_option(socket, libc::TCP_DEFER_ACCEPT, seconds);
                });
                let client = sockets::connect(sockets::local(&listener));
                // The kernel sends the SYN-ACK again after 1 s.
                thread::sleep(Duration::from_millis(if seconds > 0 { 1500 } else { 0 }));
                sockets::send(&client, b"data");
                sockets::receive(&sockets::accept(&listener), 4);
            }
        });
    });
    let deferred: Vec<_> =
        traced.transitions(Closed, Listen).iter().map(|transition| transition.defer_accept).collect();
    assert_eq!(deferred, [false, true]);
    // Mode tracepoint does not report resends.
    assert_eq!(traced.acked(), if mode == Mode::Btf { vec![true] } else { vec![] });
}

/// Where a handshake ends with the FIN, no segment has arrived in between.
#[rstest]
#[case::btf(Mode::Btf)]
#[case::tracepoint(Mode::Tracepoint)]
fn a_handshake_that_ended_with_the_fin_is_told_by_its_segments(#[case] mode: Mode) {
    let namespace = Namespace::new();
    let traced = Traced::of(mode, &namespace, || {
        namespace.run("ends", || {
            for seconds in [10, 0] {
                let listener = sockets::listen_with("127.0.0.1:0", 8, |socket| {
                    sockets::set_tcp_option(socket, libc::TCP_DEFER_ACCEPT, seconds);
                });
                drop(sockets::connect(sockets::local(&listener)));
                sockets::wait_for_end(&sockets::accept(&listener));
            }
            // Accepted before its FIN.
            let listener = sockets::listen("127.0.0.1:0");
            let client = sockets::connect(sockets::local(&listener));
            let server = sockets::accept(&listener);
            drop(client);
            sockets::wait_for_end(&server);
        });
    });
    let at_first = traced.transitions(SynReceived, Established);
    let at_first: Vec<_> =
        at_first.iter().map(|transition| transition.info.unwrap().segments_received).collect();
    let at_fin = traced.transitions(Established, CloseWait);
    let at_fin: Vec<_> = at_fin.iter().map(|transition| transition.unaccepted_segments).collect();
    assert_eq!(at_fin, [Some(at_first[0]), Some(at_first[1] + 1), None]);
}

#[test]
fn a_lost_ack_is_not_taken_for_one_that_came() {
    let mode = Mode::Btf;
    let namespace = Namespace::new();
    let traced = Traced::of(mode, &namespace, || {
        let listener = namespace.run("ends", || sockets::listen("127.0.0.1:0"));
        let port = sockets::port(&listener);
        namespace.filter_input(&format!("tcp sport {port} tcp flags & (syn | ack) == (syn | ack) drop"));
        namespace.run("ends", || {
            let client = sockets::begin_connect(loopback(port));
            thread::sleep(Duration::from_millis(1500));
            drop(client);
        });
    });
    let acked = traced.acked();
    assert!(!acked.is_empty() && acked.iter().all(|acked| !acked), "{acked:?}");
}

#[rstest]
#[case::btf(Mode::Btf)]
#[case::tracepoint(Mode::Tracepoint)]
fn a_transparent_listener_is_marked(#[case] mode: Mode) {
    let namespace = Namespace::new();
    let traced = Traced::of(mode, &namespace, || {
        namespace.run("ends", || {
            for transparent in [0, 1] {
                let listener = sockets::listen_with("127.0.0.1:0", 8, |socket| {
                    set(socket, libc::IPPROTO_IP, libc::IP_TRANSPARENT, transparent);
                });
                drop(sockets::connect(sockets::local(&listener)));
            }
        });
    });
    let marked: Vec<_> =
        traced.transitions(Listen, SynReceived).iter().map(|transition| transition.transparent).collect();
    assert_eq!(marked, [false, true]);
    let listeners = traced.transitions(Closed, Listen);
    assert_eq!(listeners.iter().map(|listens| listens.transparent).collect::<Vec<_>>(), [false, true]);
    assert!(traced.transitions(Closed, SynSent).iter().all(|transition| !transition.transparent));
}

#[rstest]
#[case::btf(Mode::Btf)]
#[case::tracepoint(Mode::Tracepoint)]
fn a_process_has_its_leaders_name(#[case] mode: Mode) {
    let namespace = Namespace::alone();
    let traced = Traced::of(mode, &namespace, || {
        let listener = namespace.run("a-thread", || sockets::listen("127.0.0.1:0"));
        let to = sockets::local(&listener);
        let gate = process::Gate::new();
        let client = ChildProcess::start(&namespace, "a-process", || {
            drop(sockets::connect(to));
            gate.open();
            process::sleep_until_killed();
        });
        gate.wait();
        sockets::wait_for_end(&sockets::accept(&listener));
        drop(client);
    });
    let listens = traced.only(Closed, Listen);
    let leader = std::fs::read("/proc/self/comm").unwrap();
    assert_eq!(listens.process.map(|process| process.pid), Some(std::process::id()));
    assert_eq!(listens.process.unwrap().name(), leader.strip_suffix(b"\n").unwrap());
    assert_eq!(listens.thread, Some(ThreadName(*b"a-thread\0\0\0\0\0\0\0\0")));
    let connects = traced.only(Closed, SynSent);
    assert_eq!(connects.process.unwrap().name(), b"a-process");
    assert_eq!(connects.thread, None, "the leader itself");
}

#[rstest]
#[case::btf(Mode::Btf)]
#[case::tracepoint(Mode::Tracepoint)]
fn a_listener_that_did_not_bind_has_its_cookie(#[case] mode: Mode) {
    const SO_COOKIE: i32 = 57;
    let namespace = Namespace::new();
    let mut cookie = 0;
    let traced = Traced::of(mode, &namespace, || {
        cookie = namespace.run("ends", || {
            let listener = sockets::tcp(loopback(0));
            listener.listen(8).unwrap();
            get(&listener, libc::SOL_SOCKET, SO_COOKIE)
        });
    });
    let listens = traced.only(Closed, Listen);
    assert_eq!(listens.local.port, 0, "the kernel binds it later");
    // Mode tracepoint reads the cookie that the socket has, and this one has none yet, unless another tracer of the host
    // has just given it one.
    let is_absent = mode == Mode::Tracepoint && listens.cookie.is_none();
    assert!(is_absent || listens.cookie == Some(SocketCookie(cookie)), "{listens:?}, cookie {cookie}");
}

/// The server's shutdown() waits for the handshake to end; then a softirq performs it, in whichever process is current.
#[rstest]
#[case::btf(Mode::Btf)]
#[case::tracepoint(Mode::Tracepoint)]
fn a_pending_shutdown_is_nobodys_call(#[case] mode: Mode) {
    let namespace = Namespace::alone();
    namespace.sysctl("net.ipv4.tcp_fastopen", "1543");
    let traced = Traced::of(mode, &namespace, || {
        let listener = namespace.run("server", || {
            sockets::listen_with("127.0.0.1:0", 8, |socket| {
                sockets::set_tcp_option(socket, libc::TCP_FASTOPEN, 8);
            })
        });
        let to = sockets::local(&listener);
        // The SYN-ACK is on its way for a while.
        namespace.filter_input(&format!("tcp sport {} drop", to.port()));
        let client = namespace.run("client", || {
            let client = sockets::tcp(to);
            sockets::set_tcp_option(&client, FAST_OPEN_CONNECT, 1);
            client.set_nonblocking(true).unwrap();
            client.connect(&to.into()).unwrap();
            let _ = (&client).write(b"hello");
            client
        });
        let server = sockets::accept(&listener);
        sockets::receive(&server, 5);
        server.shutdown(Shutdown::Write).unwrap();
        namespace.filter_input("");
        wait::until("the handshake's end", || {
            let state = get(&server, libc::IPPROTO_TCP, libc::TCP_INFO) & 0xff;
            (state != 3).then_some(())
        });
        drop((client, server));
    });
    let pending = traced.only(Established, FinWait1);
    assert_eq!(pending.process, None, "{:?}", pending.process.map(|process| process.name().to_vec()));
}
