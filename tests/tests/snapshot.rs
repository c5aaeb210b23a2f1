//! Dumps sockets of other network namespaces on the real kernel. Requires root and fails without it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports a failure")]

use std::{
    collections::BTreeSet,
    fs::File,
    net::{TcpListener, TcpStream},
    os::{fd::AsFd, linux::fs::MetadataExt},
    process::Command,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use rustix::{
    net::sockopt::socket_cookie,
    thread::{CapabilitySet, CapabilitySets, UnshareFlags},
};
use tcptrace_bpf::sources::sock_diag::{Channel, SockDiagError, SocketSnapshot, StateSet};
use tracer_core::event::{Netns, TcpState};

/// A network namespace with `lo` up and one connection. The kernel removes it on drop.
struct ConnectedNamespace {
    file: File,
    listener: TcpListener,
    client: TcpStream,
    server: TcpStream,
}

impl ConnectedNamespace {
    fn new() -> Self {
        on_a_thread(|| {
            // SAFETY: NEWNET affects neither memory nor descriptors. Only this thread, which exits right
            // after, enters the namespace.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .expect("root may create a network namespace");
            let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
            assert!(up.success());
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            Self { file: File::open("/proc/thread-self/ns/net").unwrap(), listener, client, server }
        })
        .join()
        .unwrap()
    }

    fn inode(&self) -> u32 {
        u32::try_from(self.file.metadata().unwrap().st_ino()).unwrap()
    }

    fn cookies(&self) -> BTreeSet<u64> {
        [self.listener.as_fd(), self.client.as_fd(), self.server.as_fd()]
            .map(|socket| socket_cookie(socket).unwrap())
            .into()
    }
}

fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::spawn(work)
}

fn dump(channel: &Channel) -> Vec<SocketSnapshot> {
    let mut sockets = Vec::new();
    let report = channel.dump(StateSet::ALL, &mut |socket| sockets.push(socket)).unwrap();
    assert_eq!(report.malformed, 0);
    sockets
}

fn list(namespace: &File) -> Vec<SocketSnapshot> {
    dump(&Channel::into_namespace(namespace).unwrap())
}

fn cookies(sockets: &[SocketSnapshot]) -> BTreeSet<u64> {
    sockets.iter().map(|socket| socket.cookie.0).collect()
}

#[test]
fn each_namespace_lists_its_own_sockets() {
    let namespaces = [ConnectedNamespace::new(), ConnectedNamespace::new()];
    for namespace in &namespaces {
        let sockets = list(&namespace.file);
        assert_eq!(sockets.len(), 3);
        assert_eq!(cookies(&sockets), namespace.cookies());
        assert!(sockets.iter().all(|socket| socket.netns == Some(Netns(namespace.inode()))));
        let count = |state| sockets.iter().filter(|socket| socket.state == state).count();
        assert_eq!((count(TcpState::Listen), count(TcpState::Established)), (1, 2));

        let own = dump(&Channel::here().unwrap());
        assert!(cookies(&own).is_disjoint(&namespace.cookies()));
    }
    assert_ne!(namespaces[0].inode(), namespaces[1].inode());
}

#[test]
fn namespace_outlives_its_thread_and_opens_by_path() {
    let namespace = ConnectedNamespace::new();
    let fd = rustix::fd::AsRawFd::as_raw_fd(&namespace.file);
    let reopened = File::open(format!("/proc/self/fd/{fd}")).unwrap();
    assert_eq!(cookies(&list(&reopened)), namespace.cookies());
}

#[test]
fn dump_changes_no_other_threads_namespace() {
    let namespace = ConnectedNamespace::new();
    let (finish, wait) = mpsc::channel::<()>();
    let bystander = on_a_thread(move || {
        wait.recv().unwrap_err();
        std::fs::metadata("/proc/thread-self/ns/net").unwrap().st_ino()
    });
    let here = || std::fs::metadata("/proc/thread-self/ns/net").unwrap().st_ino();
    let before = here();
    assert_ne!(before, u64::from(namespace.inode()));
    assert_eq!(list(&namespace.file).len(), 3);
    assert_eq!(here(), before);
    drop(finish);
    assert_eq!(bystander.join().unwrap(), before);
}

#[test]
fn missing_capability_is_named_in_the_error() {
    let namespace = ConnectedNamespace::new();
    let error = on_a_thread(move || {
        // Capabilities belong to the thread; the thread that enters the namespace inherits them.
        rustix::thread::set_capabilities(
            None,
            CapabilitySets {
                effective: CapabilitySet::empty(),
                permitted: CapabilitySet::empty(),
                inheritable: CapabilitySet::empty(),
            },
        )
        .unwrap();
        Channel::into_namespace(&namespace.file).unwrap_err()
    })
    .join()
    .unwrap();
    assert!(matches!(error, SockDiagError::EnterForbidden), "{error}");
    assert!(error.to_string().contains("CAP_SYS_ADMIN"), "{error}");
}
