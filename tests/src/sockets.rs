//! Sockets with a timeout on every operation, and the connections that scenarios start with.

use std::{
    io::{self, Read as _, Write as _},
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::AsRawFd as _,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{Namespace, speed};

/// ESTABLISHED in a mask for [`Namespace::sockets_in`].
pub const ESTABLISHED: u32 = 1 << 1;

/// SYN_RECV, likewise.
pub const SYN_RECEIVED: u32 = 1 << 3;

/// FIN_WAIT2, likewise.
pub const FIN_WAIT_2: u32 = 1 << 5;

/// TIME_WAIT, likewise.
pub const TIME_WAIT: u32 = 1 << 6;

/// CLOSE, likewise.
pub const CLOSED: u32 = 1 << 7;

/// CLOSE_WAIT, likewise.
pub const CLOSE_WAIT: u32 = 1 << 8;

/// LISTEN, likewise.
pub const LISTEN: u32 = 1 << 10;

/// Creates a TCP socket of the address's family, with read and write timeouts.
pub fn tcp(family_of: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(family_of), Type::STREAM, Some(Protocol::TCP))
        .expect("a socket can be created");
    set_timeouts(&socket);
    socket
}

fn set_timeouts(socket: &Socket) {
    socket.set_read_timeout(Some(speed::limit())).expect("every socket accepts a timeout");
    socket.set_write_timeout(Some(speed::limit())).expect("every socket accepts a timeout");
}

/// Parses `address:port`.
pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Creates a listening socket. With port 0 the kernel chooses the port.
pub fn listen(on: &str) -> Socket {
    listen_with(on, 128, |_| {})
}

/// Creates a listening socket with the given backlog. `prepare` runs before `bind`.
pub fn listen_with(on: &str, backlog: i32, prepare: impl FnOnce(&Socket)) -> Socket {
    let on = address(on);
    let socket = tcp(on);
    socket.set_reuse_address(true).expect("every socket accepts SO_REUSEADDR");
    prepare(&socket);
    socket.bind(&on.into()).unwrap_or_else(|error| panic!("bind to {on}: {error}"));
    socket.listen(backlog).expect("a bound socket can listen");
    socket
}

/// Returns the socket's local address.
pub fn local(socket: &Socket) -> SocketAddr {
    socket.local_addr().ok().and_then(|local| local.as_socket()).expect("a TCP socket has an address")
}

/// Returns the socket's local port.
pub fn port(socket: &Socket) -> u16 {
    local(socket).port()
}

/// Connects.
///
/// # Errors
///
/// Returns the error of `connect`.
pub fn try_connect(to: SocketAddr) -> io::Result<Socket> {
    let socket = tcp(to);
    socket.connect(&to.into())?;
    Ok(socket)
}

/// Connects, and panics on failure.
pub fn connect(to: SocketAddr) -> Socket {
    try_connect(to).unwrap_or_else(|error| panic!("connect to {to}: {error}"))
}

/// Starts a non-blocking connect on a new socket.
pub fn begin_connect(to: SocketAddr) -> Socket {
    let socket = tcp(to);
    begin_connecting(&socket, to);
    socket
}

/// Starts a non-blocking connect.
pub fn begin_connecting(socket: &Socket, to: SocketAddr) {
    socket.set_nonblocking(true).expect("every socket accepts O_NONBLOCK");
    let error = socket.connect(&to.into()).expect_err("a non-blocking connect is still in progress");
    assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS), "connect to {to}: {error}");
    socket.set_nonblocking(false).expect("every socket accepts O_NONBLOCK");
}

/// Accepts a connection.
pub fn accept(listener: &Socket) -> Socket {
    let (socket, _) = listener.accept().unwrap_or_else(|error| panic!("accept: {error}"));
    set_timeouts(&socket);
    socket
}

/// Sends all bytes.
pub fn send(socket: &Socket, data: &[u8]) {
    let mut socket = socket;
    socket.write_all(data).unwrap_or_else(|error| panic!("send: {error}"));
}

/// Receives exactly `count` bytes.
pub fn receive(socket: &Socket, count: usize) {
    let mut socket = socket;
    socket.read_exact(&mut vec![0; count]).unwrap_or_else(|error| panic!("receive: {error}"));
}

/// Waits for data without consuming it.
pub fn wait_for_data(socket: &Socket) {
    let mut byte = [MaybeUninit::uninit()];
    assert_eq!(socket.peek(&mut byte).unwrap_or_else(|error| panic!("peek: {error}")), 1);
}

/// Reads until the peer's FIN.
pub fn wait_for_end(socket: &Socket) {
    let mut socket = socket;
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap_or_else(|error| panic!("read to the end: {error}"));
}

/// Reads until the connection fails, and returns the errno.
pub fn wait_for_error(socket: &Socket) -> i32 {
    let mut socket = socket;
    let error = socket.read_to_end(&mut Vec::new()).expect_err("the connection fails");
    error.raw_os_error().unwrap_or_else(|| panic!("no errno: {error}"))
}

/// Makes `close` send a RST.
pub fn reset_on_close(socket: &Socket) {
    SockRef::from(socket).set_linger(Some(Duration::ZERO)).expect("every socket accepts SO_LINGER");
}

/// Both sockets of a connection, and its listener.
#[derive(Debug)]
pub struct Pair {
    /// The connecting socket, created on a thread named `client`.
    pub client: Socket,
    /// The accepted socket, accepted on a thread named `server`.
    pub server: Socket,
    /// The listener, created on a thread named `server`.
    pub listener: Socket,
}

/// Connects to a listener in the same namespace. With port 0 the kernel chooses the port.
pub fn pair(namespace: &Namespace, on: &str) -> Pair {
    pair_between(namespace, namespace, on, None)
}

/// Connects from one namespace to a listener in another. `via` replaces the listener's address as the
/// destination.
pub fn pair_between(client: &Namespace, server: &Namespace, on: &str, via: Option<&str>) -> Pair {
    let listener = server.run("server", || listen(on));
    let mut to = local(&listener);
    if let Some(via) = via {
        to.set_ip(via.parse().unwrap_or_else(|error| panic!("{via}: {error}")));
    }
    let client = client.run("client", || connect(to));
    let server = server.run("server", || accept(&listener));
    Pair { client, server, listener }
}

/// Sets an integer option of level IPPROTO_TCP.
pub fn set_tcp_option(socket: &Socket, option: i32, value: i32) {
    let length = libc::socklen_t::try_from(size_of::<i32>()).expect("four");
    // SAFETY: `value` outlives the call and has the given length.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, (&raw const value).cast(), length)
    };
    assert_eq!(result, 0, "TCP option {option}: {}", io::Error::last_os_error());
}

/// Returns an integer option of level IPPROTO_TCP.
pub fn tcp_option(socket: &Socket, option: i32) -> i32 {
    let mut value = 0_i32;
    let mut length = libc::socklen_t::try_from(size_of::<i32>()).expect("four");
    // SAFETY: `value` and `length` outlive the call, and `value` has the given length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "TCP option {option}: {}", io::Error::last_os_error());
    value
}

/// Disconnects the socket: `connect` with an address of family AF_UNSPEC.
pub fn disconnect(socket: &Socket) {
    // SAFETY: an all-zero `sockaddr` is valid, with family AF_UNSPEC.
    let unspecified: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr>()).expect("sixteen");
    // SAFETY: the address outlives the call and has the given length.
    let result = unsafe { libc::connect(socket.as_raw_fd(), &raw const unspecified, length) };
    assert_eq!(result, 0, "connect(AF_UNSPEC): {}", io::Error::last_os_error());
}
