//! Completeness of a dump of thousands of sockets.

use std::{collections::BTreeSet, net::TcpStream, time::Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracer_core::event::SocketCookie;

use crate::sources::sock_diag::{
    Channel, SocketSnapshot, StateSet,
    tests::support::{cookie, listen},
};

/// Connections; each has two sockets.
const CONNECTIONS: usize = 1000;

#[test]
fn thousands_of_sockets_are_dumped_once_each() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let listener = listen("127.0.0.1:0");
    let address = listener.local_addr().unwrap();
    let sockets: Vec<TcpStream> = (0..CONNECTIONS)
        .flat_map(|_| {
            let client = TcpStream::connect(address).unwrap();
            [client, listener.accept().unwrap().0]
        })
        .collect();
    let mut expected: BTreeSet<SocketCookie> = sockets.iter().map(cookie).collect();
    expected.insert(cookie(&listener));
    assert_eq!(expected.len(), 2 * CONNECTIONS + 1);

    let mut seen = [Vec::new(), Vec::new()];
    for cookies in &mut seen {
        let start = Instant::now();
        let mut count = 0;
        // By cookie and not by port, because an earlier connection may still have the port in TIME_WAIT.
        let mut handler = |socket: SocketSnapshot| {
            count += 1;
            if expected.contains(&socket.cookie) {
                cookies.push(socket.cookie);
            }
        };
        let report = Channel::here().unwrap().dump(StateSet::ALL, &mut handler).unwrap();
        eprintln!("{count} sockets in {:?}", start.elapsed());
        assert_eq!((report.malformed, report.interrupted), (0, false));
        assert_eq!(cookies.len(), expected.len());
        assert_eq!(cookies.iter().copied().collect::<BTreeSet<_>>(), expected);
    }
}
