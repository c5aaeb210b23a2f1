//! Sockets with limits on every wait, and the connections that scenarios begin with.

use std::{
    io::{self, Read as _, Write as _},
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::AsRawFd as _,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{Namespace, speed};

/// The state ESTABLISHED in a mask for [`Namespace::sockets_in`].
pub const ESTABLISHED: u32 = 1 << 1;

/// The state FIN_WAIT2, likewise.
pub const FIN_WAIT_2: u32 = 1 << 5;

/// The state TIME_WAIT, likewise.
pub const TIME_WAIT: u32 = 1 << 6;

/// The state LISTEN, likewise.
pub const LISTEN: u32 = 1 << 10;

/// A new TCP socket of the address's family, whose waits are limited.
pub fn tcp(family_of: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(family_of), Type::STREAM, Some(Protocol::TCP))
        .expect("a socket can be made");
    limit(&socket);
    socket
}

fn limit(socket: &Socket) {
    socket.set_read_timeout(Some(speed::limit())).expect("every socket takes a timeout");
    socket.set_write_timeout(Some(speed::limit())).expect("every socket takes a timeout");
}

/// Parses `address:port`.
pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A socket that listens; port 0 lets the kernel choose.
pub fn listen(on: &str) -> Socket {
    listen_with(on, 128, |_| {})
}

/// A socket that listens with this backlog, after `prepare`.
pub fn listen_with(on: &str, backlog: i32, prepare: impl FnOnce(&Socket)) -> Socket {
    let on = address(on);
    let socket = tcp(on);
    socket.set_reuse_address(true).expect("every socket takes SO_REUSEADDR");
    prepare(&socket);
    socket.bind(&on.into()).unwrap_or_else(|error| panic!("bind to {on}: {error}"));
    socket.listen(backlog).expect("a bound socket can listen");
    socket
}

/// The socket's own address.
pub fn local(socket: &Socket) -> SocketAddr {
    socket.local_addr().ok().and_then(|local| local.as_socket()).expect("a TCP socket has an address")
}

/// The socket's own port.
pub fn port(socket: &Socket) -> u16 {
    local(socket).port()
}

/// Connects, or says why not.
///
/// # Errors
///
/// What `connect` fails with.
pub fn try_connect(to: SocketAddr) -> io::Result<Socket> {
    let socket = tcp(to);
    socket.connect(&to.into())?;
    Ok(socket)
}

/// Connects.
pub fn connect(to: SocketAddr) -> Socket {
    try_connect(to).unwrap_or_else(|error| panic!("connect to {to}: {error}"))
}

/// Begins to connect a new socket and does not wait.
pub fn begin_connect(to: SocketAddr) -> Socket {
    let socket = tcp(to);
    begin_connecting(&socket, to);
    socket
}

/// Begins to connect and does not wait.
pub fn begin_connecting(socket: &Socket, to: SocketAddr) {
    socket.set_nonblocking(true).expect("every socket takes O_NONBLOCK");
    let error = socket.connect(&to.into()).expect_err("the answer takes its time");
    assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS), "connect to {to}: {error}");
    socket.set_nonblocking(false).expect("every socket takes O_NONBLOCK");
}

/// Accepts a connection.
pub fn accept(listener: &Socket) -> Socket {
    let (socket, _) = listener.accept().unwrap_or_else(|error| panic!("accept: {error}"));
    limit(&socket);
    socket
}

/// Writes all of it.
pub fn send(socket: &Socket, data: &[u8]) {
    let mut socket = socket;
    socket.write_all(data).unwrap_or_else(|error| panic!("send: {error}"));
}

/// Reads exactly that many bytes.
pub fn receive(socket: &Socket, count: usize) {
    let mut socket = socket;
    socket.read_exact(&mut vec![0; count]).unwrap_or_else(|error| panic!("receive: {error}"));
}

/// Waits until that many bytes can be read, and leaves them there.
pub fn wait_for_data(socket: &Socket) {
    let mut byte = [MaybeUninit::uninit()];
    assert_eq!(socket.peek(&mut byte).unwrap_or_else(|error| panic!("peek: {error}")), 1);
}

/// Reads until the peer has closed.
pub fn wait_for_end(socket: &Socket) {
    let mut socket = socket;
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap_or_else(|error| panic!("read to the end: {error}"));
}

/// Reads until the connection breaks, and says with which error.
pub fn wait_for_error(socket: &Socket) -> i32 {
    let mut socket = socket;
    let error = socket.read_to_end(&mut Vec::new()).expect_err("the connection breaks");
    error.raw_os_error().unwrap_or_else(|| panic!("not the kernel's: {error}"))
}

/// Makes `close` send a reset.
pub fn reset_on_close(socket: &Socket) {
    SockRef::from(socket).set_linger(Some(Duration::ZERO)).expect("every socket takes SO_LINGER");
}

/// A connection with both ends at hand, and its listener.
#[derive(Debug)]
pub struct Pair {
    /// The end that connected, on a thread named `client`.
    pub client: Socket,
    /// The end that was accepted, on a thread named `server`.
    pub server: Socket,
    /// Where it was accepted, on a thread named `server`.
    pub listener: Socket,
}

/// Connects within a namespace to a listener on this address; port 0 lets the kernel choose.
pub fn pair(namespace: &Namespace, on: &str) -> Pair {
    pair_between(namespace, namespace, on, None)
}

/// Connects from one namespace to a listener in another, there at another address if `via` says so.
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

/// Sets an option of the TCP level that has an integer for its value.
pub fn set_tcp_option(socket: &Socket, option: i32, value: i32) {
    let length = libc::socklen_t::try_from(size_of::<i32>()).expect("four");
    // SAFETY: the value lives across the call and has the length that is given.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, (&raw const value).cast(), length)
    };
    assert_eq!(result, 0, "TCP option {option}: {}", io::Error::last_os_error());
}

/// Dissolves the socket's association, as `connect` to an address of the family `AF_UNSPEC` does.
pub fn disconnect(socket: &Socket) {
    // SAFETY: all zeroes is a valid `sockaddr`, of the family AF_UNSPEC.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr>()).expect("sixteen");
    // SAFETY: the address lives across the call and has the length that is given.
    let result = unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) };
    assert_eq!(result, 0, "connect(AF_UNSPEC): {}", io::Error::last_os_error());
}
