//! Dumps of other network namespaces, against a real kernel. Needs root and fails without it.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

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
use tcptrace_bpf::sources::sock_diag::{
    Filter, SockDiagError, SocketSnapshot, dump, dump_namespace, dump_namespace_at,
};
use tracer_core::event::TcpState;

/// A network namespace with loopback up, and one connection in it. It ends with the value.
struct Namespace {
    file: File,
    listener: TcpListener,
    client: TcpStream,
    server: TcpStream,
}

impl Namespace {
    fn new() -> Self {
        on_a_thread(|| {
            // SAFETY: NEWNET shares or unshares no memory and no descriptors; only this thread,
            // which ends right after, has another namespace.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .expect("making a network namespace needs root");
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

fn list(namespace: &File) -> Vec<SocketSnapshot> {
    let mut sockets = Vec::new();
    let report = dump_namespace(namespace, &mut |socket| sockets.push(socket), &Filter::default()).unwrap();
    assert_eq!((report.sockets, report.malformed), (sockets.len() as u64, 0));
    sockets
}

fn cookies(sockets: &[SocketSnapshot]) -> BTreeSet<u64> {
    sockets.iter().map(|socket| socket.cookie).collect()
}

#[test]
fn each_namespace_lists_its_own_sockets() {
    let namespaces = [Namespace::new(), Namespace::new()];
    for namespace in &namespaces {
        let sockets = list(&namespace.file);
        assert_eq!(sockets.len(), 3);
        assert_eq!(cookies(&sockets), namespace.cookies());
        assert!(sockets.iter().all(|socket| socket.netns == Some(namespace.inode())));
        let count = |state| sockets.iter().filter(|socket| socket.state == state).count();
        assert_eq!((count(TcpState::Listen), count(TcpState::Established)), (1, 2));

        let mut own = Vec::new();
        let _ = dump(&mut |socket| own.push(socket), &Filter::default()).unwrap();
        assert!(cookies(&own).is_disjoint(&namespace.cookies()));
    }
    assert_ne!(namespaces[0].inode(), namespaces[1].inode());
}

#[test]
fn a_namespace_outlives_the_thread_that_made_it_and_has_a_path() {
    let namespace = Namespace::new();
    let fd = rustix::fd::AsRawFd::as_raw_fd(&namespace.file);
    let mut sockets = Vec::new();
    let path = format!("/proc/self/fd/{fd}");
    let _ = dump_namespace_at(&path, &mut |socket| sockets.push(socket), &Filter::default()).unwrap();
    assert_eq!(cookies(&sockets), namespace.cookies());
}

#[test]
fn no_other_thread_changes_its_namespace() {
    let namespace = Namespace::new();
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
fn without_the_capability_the_error_names_it() {
    let namespace = Namespace::new();
    let error = on_a_thread(move || {
        // Capabilities belong to the thread; the one that enters the namespace inherits them.
        rustix::thread::set_capabilities(
            None,
            CapabilitySets {
                effective: CapabilitySet::empty(),
                permitted: CapabilitySet::empty(),
                inheritable: CapabilitySet::empty(),
            },
        )
        .unwrap();
        dump_namespace(&namespace.file, &mut |_| {}, &Filter::default()).unwrap_err()
    })
    .join()
    .unwrap();
    assert!(matches!(error, SockDiagError::EnterForbidden), "{error}");
    assert!(error.to_string().contains("CAP_SYS_ADMIN"), "{error}");
}

#[test]
fn a_namespace_that_is_gone_is_named() {
    let path = "/run/netns/tcptrace-bpf-there-is-none";
    let error = dump_namespace_at(path, &mut |_| {}, &Filter::default()).unwrap_err();
    assert!(matches!(error, SockDiagError::OpenNamespace { .. }), "{error}");
    assert!(error.to_string().contains(path), "{error}");
}
