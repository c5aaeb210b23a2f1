//! Sockets on loopback and ways to find them in a dump.

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

use crate::sources::sock_diag::{Filter, SocketSnapshot, dump};

/// How long the kernel may take for what it does at once.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// Everything that the filter wants, each cookie once.
pub(super) fn list(filter: &Filter) -> Vec<SocketSnapshot> {
    let mut sockets = Vec::new();
    let report = dump(&mut |socket| sockets.push(socket), filter).unwrap();
    assert_eq!(report.sockets, sockets.len() as u64);
    assert_eq!((report.malformed, report.truncated, report.interrupted), (0, 0, false));
    sockets
}

/// The sockets with the cookie of `socket`.
pub(super) fn named(cookie: u64) -> Vec<SocketSnapshot> {
    list(&Filter::default()).into_iter().filter(|socket| socket.cookie == cookie).collect()
}

/// The one socket with this cookie, once it is as `ready` wants it.
pub(super) fn wait_for(cookie: u64, ready: impl Fn(&SocketSnapshot) -> bool) -> SocketSnapshot {
    wait_in(&Filter::default(), |socket| socket.cookie == cookie && ready(socket))
}

/// The one socket that is as `ready` wants it, once there is one.
pub(super) fn wait_in(filter: &Filter, ready: impl Fn(&SocketSnapshot) -> bool) -> SocketSnapshot {
    let start = Instant::now();
    loop {
        let sockets = list(filter);
        let found: Vec<_> = sockets.iter().filter(|socket| ready(socket)).collect();
        assert!(found.len() < 2, "{found:#?}");
        if let Some(&&socket) = found.first() {
            return socket;
        }
        assert!(start.elapsed() < LIMIT, "not among {sockets:#?}");
        sleep(Duration::from_millis(5));
    }
}

/// A listener on a free port of `address`.
pub(super) fn listen(address: &str) -> TcpListener {
    TcpListener::bind(address).unwrap()
}

/// The two ends of a connection to `listener` over `address`: client, server.
pub(super) fn connect(listener: &TcpListener, address: &str) -> (TcpStream, TcpStream) {
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect((address, port)).unwrap();
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(peer.port(), client.local_addr().unwrap().port());
    (client, server)
}

/// A connection over IPv4.
pub(super) fn pair() -> (TcpStream, TcpStream) {
    connect(&listen("127.0.0.1:0"), "127.0.0.1")
}

/// Starts to connect and does not wait.
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

/// `SO_COOKIE`.
pub(super) fn cookie(socket: impl AsFd) -> u64 {
    socket_cookie(socket).unwrap()
}

/// The inode that `fstat` gives.
pub(super) fn inode(socket: impl AsFd) -> u64 {
    File::from(socket.as_fd().try_clone_to_owned().unwrap()).metadata().unwrap().ino()
}

/// Sets `TCP_DEFER_ACCEPT`: a connection is a half-open request until its first data.
pub(super) fn defer_accept(listener: &TcpListener) {
    let seconds: libc::c_int = 30;
    // SAFETY: the descriptor is open, and the option value is an int that lives across the call.
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
