//! Opens connections and waits for each step, so that they always pass through the same states.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{
    AddressFamily, SocketType, bind, connect, getsockname, socket, sockopt::set_socket_linger,
};

use super::expect::Expected;

const REQUEST: &[u8] = b"12345";
const RESPONSE: &[u8] = b"1234567";
const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Opens all connections, one after the other.
pub(crate) fn all() -> Result<Vec<Expected>> {
    let mut all = Vec::new();
    for (name, listen, connect) in
        [("ipv4", V4, V4), ("ipv6", V6, V6), ("ipv4 to an ipv6 listener", Ipv6Addr::UNSPECIFIED.into(), V4)]
    {
        all.extend(orderly(name, listen, connect).with_context(|| format!("{name}, orderly"))?);
    }
    for (name, address) in [("ipv4", V4), ("ipv6", V6)] {
        all.extend(aborted(name, address).with_context(|| format!("{name}, aborted"))?);
        all.push(refused(name, address).with_context(|| format!("{name}, refused"))?);
    }
    Ok(all)
}

/// Opens connections one after the other, each of which the client resets. Returns the listener's port and those of the
/// clients.
pub(crate) fn many(count: usize) -> Result<(u16, Vec<u16>)> {
    let listener = TcpListener::bind((V4, 0))?;
    let port = listener.local_addr()?.port();
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        let client = TcpStream::connect((V4, port))?;
        let server = listener.accept()?.0;
        clients.push(client.local_addr()?.port());
        // Without TIME_WAIT, which would end a minute later.
        set_socket_linger(&client, Some(Duration::ZERO))?;
        drop(client);
        drop(server);
    }
    Ok((port, clients))
}

/// The client sends a request, the server responds, the client closes its half, then the server.
fn orderly(name: &str, listen: IpAddr, address: IpAddr) -> Result<[Expected; 2]> {
    let (mut client, mut server, addresses) = pair(listen, address)?;
    exchange(&mut client, &mut server, REQUEST)?;
    exchange(&mut server, &mut client, RESPONSE)?;
    client.shutdown(std::net::Shutdown::Write)?;
    ensure!(server.read(&mut [0])? == 0, "the server reads EOF");
    drop(server);
    ensure!(client.read(&mut [0])? == 0, "the client reads EOF");
    let (sent, received) = (REQUEST.len() as u64, RESPONSE.len() as u64);
    Ok([
        Expected {
            name: format!("{name}: client"),
            role: "client",
            states: &["syn_sent", "established", "fin_wait_1", "fin_wait_2", "time_wait"],
            close_reason: "closed",
            closed_by: "local",
            error: None,
            bytes: (sent, received),
            ..expected(addresses.0, addresses.1)
        },
        Expected {
            name: format!("{name}: server"),
            role: "server",
            states: &["syn_received", "established", "close_wait", "last_ack"],
            close_reason: "closed",
            closed_by: "remote",
            error: None,
            bytes: (received, sent),
            ..expected(addresses.1, addresses.0)
        },
    ])
}

/// The client sends a RST instead of a FIN.
fn aborted(name: &str, address: IpAddr) -> Result<[Expected; 2]> {
    let (mut client, mut server, addresses) = pair(address, address)?;
    exchange(&mut client, &mut server, REQUEST)?;
    set_socket_linger(&client, Some(Duration::ZERO))?;
    drop(client);
    let error = server.read(&mut [0]).err().map(|error| error.kind());
    ensure!(error == Some(std::io::ErrorKind::ConnectionReset), "the server is reset: {error:?}");
    let sent = REQUEST.len() as u64;
    Ok([
        Expected {
            name: format!("{name}: aborts"),
            role: "client",
            states: &["syn_sent", "established"],
            close_reason: "aborted",
            closed_by: "local",
            error: None,
            bytes: (sent, 0),
            ..expected(addresses.0, addresses.1)
        },
        Expected {
            name: format!("{name}: is reset"),
            role: "server",
            states: &["syn_received", "established"],
            close_reason: "reset_by_peer",
            closed_by: "remote",
            error: Some("ECONNRESET"),
            bytes: (0, sent),
            ..expected(addresses.1, addresses.0)
        },
    ])
}

/// No socket listens on the port. The client's port is bound explicitly, so that it is known afterwards.
fn refused(name: &str, address: IpAddr) -> Result<Expected> {
    let closed = TcpListener::bind((address, 0))?.local_addr()?;
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let client = socket(family, SocketType::STREAM, None)?;
    bind(&client, &SocketAddr::from((address, 0)))?;
    let local = SocketAddr::try_from(getsockname(&client)?)?;
    let result = connect(&client, &closed);
    ensure!(result == Err(rustix::io::Errno::CONNREFUSED), "the connection is refused: {result:?}");
    Ok(Expected {
        name: format!("{name}: refused"),
        role: "client",
        states: &["syn_sent"],
        close_reason: "refused",
        closed_by: "remote",
        error: Some("ECONNREFUSED"),
        bytes: (0, 0),
        handshake: false,
        ..expected(local, closed)
    })
}

/// Connects a pair of sockets. Returns the client, the server and their addresses.
fn pair(listen: IpAddr, address: IpAddr) -> Result<(TcpStream, TcpStream, (SocketAddr, SocketAddr))> {
    let listener = TcpListener::bind((listen, 0))?;
    let server_address = SocketAddr::new(address, listener.local_addr()?.port());
    let client = TcpStream::connect(server_address)?;
    let (server, _) = listener.accept()?;
    let client_address = client.local_addr()?;
    Ok((client, server, (client_address, server_address)))
}

fn exchange(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    from.write_all(bytes)?;
    let mut received = vec![0; bytes.len()];
    to.read_exact(&mut received)?;
    ensure!(received == bytes, "the received bytes equal the sent ones");
    Ok(())
}

/// Returns default expectations of a socket with the given addresses.
fn expected(local: SocketAddr, remote: SocketAddr) -> Expected {
    Expected {
        name: String::new(),
        local,
        remote,
        role: "unknown",
        states: &[],
        close_reason: "unknown",
        closed_by: "unknown",
        error: None,
        bytes: (0, 0),
        handshake: true,
    }
}
