//! Asks the kernel for its sockets and hands them on one by one.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        linux::fs::MetadataExt,
    },
    path::Path,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType,
        netlink::{self as rustix_netlink, SocketAddrNetlink},
        sockopt::{Timeout, set_socket_timeout},
    },
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::sources::sock_diag::{
    decode,
    error::SockDiagError,
    filter::Filter,
    netlink::{AF_INET, AF_INET6, Message, messages, request},
    socket::SocketSnapshot,
};

/// Room for one datagram. The kernel fills at most 32 KiB and only if the reader offers as much
/// (`netlink_dump`).
const BUFFER: usize = 64 * 1024;

/// How long the kernel may be silent in the middle of an answer. It prepares each part while the
/// reader is in `recv`, so it is silent only when the end of the answer was lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many of the last cookies are remembered. A socket comes twice when others enter its hash
/// chain before it between two parts of the answer, so its copies are at most a chain apart.
const REMEMBERED: usize = 256;

/// What became of a dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct DumpReport {
    /// Sockets handed to the caller.
    pub sockets: u64,
    /// Sockets that came twice because their hash chain changed under the walk; handed on once.
    pub duplicates: u64,
    /// Messages that could not be understood; see [`decode::DecodeError`].
    pub malformed: u64,
    /// Datagrams that did not fit the buffer; what did not fit is lost.
    pub truncated: u64,
    /// The list is incomplete or inconsistent, by the kernel's own account (`NLM_F_DUMP_INTR`),
    /// because parts of it were lost (`ENOBUFS`, truncation) or because a part was malformed beyond
    /// its message. Dump again.
    pub interrupted: bool,
}

/// Lists the TCP sockets of the calling thread's network namespace that `filter` wants.
///
/// `handler` gets each once, in no particular order, while the kernel goes on; memory use does not
/// depend on how many there are. It should be quick: what happens during the walk may be missed.
///
/// # Errors
/// When the kernel cannot be asked or its answer does not come; sockets may have been handed on
/// before. Losses on the way are no error but counted in the report.
pub fn dump(handler: &mut dyn FnMut(SocketSnapshot), filter: &Filter) -> Result<DumpReport, SockDiagError> {
    Channel::here()?.dump(handler, filter)
}

/// Lists the TCP sockets of the network namespace that `namespace` is open on, as [`dump`] does.
///
/// A thread of its own enters the namespace, opens a socket there and ends: neither the calling
/// thread nor any other changes its namespace. `handler` runs on the calling thread.
///
/// # Errors
/// Those of [`dump`], and when the namespace cannot be entered.
pub fn dump_namespace(
    namespace: impl AsFd,
    handler: &mut dyn FnMut(SocketSnapshot),
    filter: &Filter,
) -> Result<DumpReport, SockDiagError> {
    Channel::into_namespace(namespace)?.dump(handler, filter)
}

/// A diagnostics socket. It belongs to the network namespace it was opened in, and needs no privilege once it
/// is open.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    netns: Option<u32>,
}

impl Channel {
    /// Opens one in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has no diagnostics sockets, or no descriptor is left.
    pub fn here() -> Result<Self, SockDiagError> {
        let netns = File::open("/proc/thread-self/ns/net").ok().and_then(|file| inode(&file));
        Ok(Self { socket: connect()?, netns })
    }

    /// Opens one in the network namespace that `namespace` is open on; see [`dump_namespace`].
    ///
    /// # Errors
    /// Those of [`Channel::here`], and when the namespace cannot be entered.
    pub fn into_namespace(namespace: impl AsFd) -> Result<Self, SockDiagError> {
        let namespace = namespace.as_fd();
        let netns = namespace.try_clone_to_owned().ok().and_then(|fd| inode(&File::from(fd)));
        Ok(Self { socket: connect_in(namespace)?, netns })
    }

    /// Inode of the network namespace it looks into.
    pub fn netns(&self) -> Option<u32> {
        self.netns
    }

    /// Lists the sockets, as [`dump`] does. After an error the channel is of no more use: the rest of an
    /// answer may still be in it.
    ///
    /// # Errors
    /// Those of [`dump`].
    pub fn dump(
        &self,
        handler: &mut dyn FnMut(SocketSnapshot),
        filter: &Filter,
    ) -> Result<DumpReport, SockDiagError> {
        walk(&self.socket, self.netns, handler, filter)
    }
}

/// Lists the TCP sockets of the network namespace with the file `path`, such as `/proc/PID/ns/net`
/// or `/run/netns/NAME`; see [`dump_namespace`].
///
/// # Errors
/// Those of [`dump_namespace`], and when the file cannot be opened.
pub fn dump_namespace_at(
    path: impl AsRef<Path>,
    handler: &mut dyn FnMut(SocketSnapshot),
    filter: &Filter,
) -> Result<DumpReport, SockDiagError> {
    let path = path.as_ref();
    let namespace =
        File::open(path).map_err(|source| SockDiagError::OpenNamespace { path: path.to_owned(), source })?;
    dump_namespace(namespace, handler, filter)
}

/// The inode of a namespace file. The kernel numbers namespaces with 32 bits (`struct ns_common`).
fn inode(file: &File) -> Option<u32> {
    file.metadata().ok().and_then(|metadata| u32::try_from(metadata.st_ino()).ok())
}

/// Opens a diagnostics socket in the namespace of the calling thread.
fn connect() -> Result<OwnedFd, SockDiagError> {
    let open = || {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(rustix_netlink::SOCK_DIAG),
        )?;
        // Connected to port 0, the kernel, it takes no messages from anybody else.
        rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(socket)
    };
    open().map_err(|errno: Errno| SockDiagError::Open(errno.into()))
}

/// Opens a diagnostics socket in `namespace`.
fn connect_in(namespace: BorrowedFd<'_>) -> Result<OwnedFd, SockDiagError> {
    let enter = || {
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network)).map_err(
            |errno| match errno {
                Errno::PERM => SockDiagError::EnterForbidden,
                Errno::INVAL => SockDiagError::NotNamespace,
                other => SockDiagError::Enter(other.into()),
            },
        )?;
        connect()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, enter)
            .map_err(SockDiagError::Thread)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Dumps one family after the other over `socket`.
fn walk(
    socket: &OwnedFd,
    netns: Option<u32>,
    handler: &mut dyn FnMut(SocketSnapshot),
    filter: &Filter,
) -> Result<DumpReport, SockDiagError> {
    let mut walk = Walk {
        socket,
        netns,
        handler,
        filter,
        buffer: vec![0; BUFFER],
        recent: Recent::default(),
        report: DumpReport::default(),
    };
    if filter.ipv4 {
        walk.family(AF_INET, 1)?;
    }
    // An IPv6 socket may have v4-mapped addresses, and each socket is in the list of its own family
    // only: IPv4 alone wants both lists too.
    if filter.ipv4 || filter.ipv6 {
        walk.family(AF_INET6, 2)?;
    }
    Ok(walk.report)
}

struct Walk<'a> {
    socket: &'a OwnedFd,
    netns: Option<u32>,
    handler: &'a mut dyn FnMut(SocketSnapshot),
    filter: &'a Filter,
    buffer: Vec<u8>,
    recent: Recent,
    report: DumpReport,
}

impl Walk<'_> {
    /// Asks for one family and reads the answer to its end.
    fn family(&mut self, family: u8, sequence: u32) -> Result<(), SockDiagError> {
        let request = request(family, sequence, self.filter);
        retry(|| rustix::net::send(self.socket, &request, SendFlags::empty()))
            .map_err(|errno| SockDiagError::Request(errno.into()))?;
        loop {
            // With TRUNC the second number is the length the datagram had.
            let received = retry(|| rustix::net::recv(self.socket, &mut self.buffer[..], RecvFlags::TRUNC));
            let length = match received {
                Ok((length, whole)) => {
                    if whole > length {
                        self.report.truncated += 1;
                        self.report.interrupted = true;
                    }
                    length
                }
                Err(Errno::NOBUFS) => {
                    // Said once for parts that are lost; what comes after is still good.
                    self.report.interrupted = true;
                    continue;
                }
                // The end itself was among what was lost.
                Err(Errno::AGAIN) if self.report.interrupted => return Ok(()),
                Err(Errno::AGAIN) => return Err(SockDiagError::Silent),
                Err(errno) => return Err(SockDiagError::Receive(errno.into())),
            };
            // Only a closed socket gives an empty datagram, and this one is open.
            if length == 0 || self.datagram(length, sequence)? {
                return Ok(());
            }
        }
    }

    /// Handles the messages of a datagram; true at the end of the answer.
    fn datagram(&mut self, length: usize, sequence: u32) -> Result<bool, SockDiagError> {
        for framed in messages(&self.buffer[..length], sequence) {
            self.report.interrupted |= framed.interrupted;
            match framed.message {
                Message::Socket(body) => match decode::message(body) {
                    Ok(socket) if !self.filter.matches(&socket) => {}
                    Ok(socket) if self.recent.remember(socket.cookie) => {
                        self.report.sockets += 1;
                        (self.handler)(SocketSnapshot { netns: self.netns, ..socket });
                    }
                    Ok(_) => self.report.duplicates += 1,
                    Err(_) => self.report.malformed += 1,
                },
                Message::Done => return Ok(true),
                Message::Error(errno) => return Err(refusal(errno)),
                Message::Foreign => {}
                Message::Malformed => {
                    self.report.malformed += 1;
                    self.report.interrupted = true;
                }
            }
        }
        Ok(false)
    }
}

/// What an error in the answer means.
fn refusal(errno: i32) -> SockDiagError {
    // No handler for TCP is registered (inet_diag_lock_handler), or none for the family.
    if [Errno::NOENT, Errno::OPNOTSUPP].map(Errno::raw_os_error).contains(&errno) {
        return SockDiagError::Unsupported;
    }
    SockDiagError::Refused(io::Error::from_raw_os_error(errno))
}

/// Calls until it is not a signal that ended the call.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

/// The last cookies seen.
struct Recent {
    cookies: [u64; REMEMBERED],
    next: usize,
}

impl Default for Recent {
    fn default() -> Self {
        // Cookies start at 1.
        Self { cookies: [0; REMEMBERED], next: 0 }
    }
}

impl Recent {
    /// Notes `cookie`; false if it was among the last.
    fn remember(&mut self, cookie: u64) -> bool {
        if cookie != 0 {
            if self.cookies.contains(&cookie) {
                return false;
            }
            self.cookies[self.next] = cookie;
            self.next = (self.next + 1) % REMEMBERED;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cookies_are_remembered() {
        let mut recent = Recent::default();
        for cookie in 1..=300 {
            assert!(recent.remember(cookie), "{cookie}");
        }
        assert!(!recent.remember(300));
        assert!(!recent.remember(45));
        assert!(recent.remember(44));
        assert!(recent.remember(0));
        assert!(recent.remember(0));
    }

    /// A message as the kernel frames it, with the smallest body of a listener.
    fn listener(cookie: u8, state: u8, flags: u16) -> Vec<u8> {
        let mut bytes = vec![0; 16 + 72];
        bytes[0..4].copy_from_slice(&88u32.to_ne_bytes());
        bytes[4..6].copy_from_slice(&20u16.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&1u32.to_ne_bytes());
        bytes[16..18].copy_from_slice(&[AF_INET, state]);
        bytes[16 + 44..16 + 48].copy_from_slice(&u32::from(cookie).to_ne_bytes());
        bytes
    }

    #[test]
    fn everything_that_comes_is_accounted_for() {
        const INTERRUPTED: u16 = 0x10;
        let mut seen = Vec::new();
        let mut report = |parts: &[Vec<u8>]| {
            let buffer = parts.concat();
            let length = buffer.len();
            let mut walk = Walk {
                socket: &connect().unwrap(),
                netns: Some(9),
                handler: &mut |socket| seen.push((socket.cookie, socket.netns)),
                filter: &Filter::default(),
                buffer,
                recent: Recent::default(),
                report: DumpReport::default(),
            };
            assert!(!walk.datagram(length, 1).unwrap());
            walk.report
        };

        let good = DumpReport { sockets: 2, ..DumpReport::default() };
        let parts = [listener(1, 10, 2), listener(2, 10, 2)];
        assert_eq!(report(&parts), good);
        let parts = [listener(3, 10, 2), listener(4, 10, 2), listener(3, 6, 2)];
        assert_eq!(report(&parts), DumpReport { duplicates: 1, ..good });
        let parts = [listener(5, 10, 2), listener(6, 99, 2), listener(7, 10, 2)];
        assert_eq!(report(&parts), DumpReport { malformed: 1, ..good });
        let parts = [listener(8, 10, 2), listener(9, 10, INTERRUPTED)];
        assert_eq!(report(&parts), DumpReport { interrupted: true, ..good });
        let parts = [listener(10, 10, 2), listener(11, 10, 2), vec![1, 2, 3]];
        assert_eq!(report(&parts), DumpReport { malformed: 1, interrupted: true, ..good });

        let expected = [1, 2, 3, 4, 5, 7, 8, 9, 10, 11].map(|cookie| (cookie, Some(9)));
        assert_eq!(seen, expected);
    }

    #[test]
    fn refusals_name_their_remedy() {
        assert!(matches!(refusal(2), SockDiagError::Unsupported));
        assert!(refusal(2).to_string().contains("modprobe tcp_diag"));
        assert!(matches!(refusal(13), SockDiagError::Refused(_)));
        // A number no errno has must not panic either.
        assert!(matches!(refusal(i32::MAX), SockDiagError::Refused(_)));
    }
}
