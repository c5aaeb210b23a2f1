//! Creates sockets on loopback and finds them in a dump.

use std::{
    fs::File,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::MetadataExt,
    },
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::net::sockopt::socket_cookie;
use tracer_core::event::{SocketCookie, TcpState};

use crate::sources::sock_diag::{Channel, SocketSnapshot, StateSet};

/// Longest wait for changes that the kernel makes at once.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// Dumps the sockets in `states`.
pub(super) fn list(states: StateSet) -> Vec<SocketSnapshot> {
    let mut sockets = Vec::new();
    let report = Channel::here().unwrap().dump(states, &mut |socket| sockets.push(socket)).unwrap();
    assert_eq!((report.malformed, report.interrupted), (0, false));
    sockets
}

/// Dumps the established connections with this local port.
pub(super) fn established_on(port: u16) -> Vec<SocketSnapshot> {
    let established = list(StateSet::NONE.with(TcpState::Established));
    established.into_iter().filter(|socket| socket.local.port == port).collect()
}

/// Dumps the sockets with this cookie.
pub(super) fn with_cookie(cookie: SocketCookie) -> Vec<SocketSnapshot> {
    list(StateSet::ALL).into_iter().filter(|socket| socket.cookie == cookie).collect()
}

/// Waits for the socket with this cookie to fulfil `ready`.
pub(super) fn wait_for(cookie: SocketCookie, ready: impl Fn(&SocketSnapshot) -> bool) -> SocketSnapshot {
    wait_in(StateSet::ALL, |socket| socket.cookie == cookie && ready(socket))
}

/// Waits until exactly one socket in `states` fulfils `ready`.
pub(super) fn wait_in(states: StateSet, ready: impl Fn(&SocketSnapshot) -> bool) -> SocketSnapshot {
    let start = Instant::now();
    loop {
        let sockets = list(states);
        let found: Vec<_> = sockets.iter().filter(|socket| ready(socket)).collect();
        assert!(found.len() < 2, "{found:#?}");
        if let Some(&&socket) = found.first() {
            return socket;
        }
        assert!(start.elapsed() < LIMIT, "not among {sockets:#?}");
        sleep(Duration::from_millis(5));
    }
}

/// Listens on a free port of `address`.
pub(super) fn listen(address: &str) -> TcpListener {
    TcpListener::bind(address).unwrap()
}

/// Connects to `listener` over `address`. Returns client and server.
pub(super) fn connect(listener: &TcpListener, address: &str) -> (TcpStream, TcpStream) {
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect((address, port)).unwrap();
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(peer.port(), client.local_addr().unwrap().port());
    (client, server)
}

/// Opens a connection over IPv4. Returns client and server.
pub(super) fn pair() -> (TcpStream, TcpStream) {
    connect(&listen("127.0.0.1:0"), "127.0.0.1")
}

/// Starts a non-blocking connect.
pub(super) fn begin_connect(address: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    assert_eq!(rustix::net::connect(&socket, &address), Err(rustix::io::Errno::INPROGRESS));
    TcpStream::from(socket)
}

/// Returns the `SO_COOKIE` of a socket.
pub(super) fn cookie(socket: impl AsFd) -> SocketCookie {
    SocketCookie(socket_cookie(socket).unwrap())
}

/// Returns the inode of a socket from `fstat`.
pub(super) fn inode(socket: impl AsFd) -> u64 {
    File::from(socket.as_fd().try_clone_to_owned().unwrap()).metadata().unwrap().ino()
}

/// Sets `TCP_DEFER_ACCEPT`: a connection is a request socket until its first data.
pub(super) fn defer_accept(listener: &TcpListener) {
    let seconds: libc::c_int = 30;
    // SAFETY: the descriptor is open, and the option value is an int that outlives the call.
    let status = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            4,
        )
    };
    assert_eq!(status, 0, "{}", io::Error::last_os_error());
}
