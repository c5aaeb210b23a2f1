//! Requests a socket dump from the kernel and passes on the sockets one by one.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        linux::fs::MetadataExt,
    },
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
use tracer_core::event::{Netns, SocketCookie};

use crate::sources::sock_diag::{
    decode,
    error::SockDiagError,
    netlink::{AF_INET, AF_INET6, Message, messages, request},
    socket::SocketSnapshot,
    states::StateSet,
};

/// Size of the receive buffer. The kernel fills at most 32 KiB, and only if the reader offers as much
/// (`netlink_dump`).
const BUFFER: usize = 64 * 1024;

/// Longest wait for the next part of an answer. The kernel prepares each part while the reader is in `recv`, so a
/// longer wait means that the end of the answer was lost.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of cookies that are kept to detect duplicates. A socket is reported twice when others are inserted before it
/// in its hash chain between two parts of the answer, so both reports are at most one chain apart.
const RECENT: usize = 256;

/// The result of a socket dump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct DumpReport {
    /// Messages that could not be decoded; see [`decode::DecodeError`].
    pub malformed: u64,
    /// The dump is incomplete or inconsistent: the kernel says so (`NLM_F_DUMP_INTR`), parts were lost (`ENOBUFS`, a
    /// truncated datagram), or the framing of a part was invalid. Repeat the dump.
    pub interrupted: bool,
}

/// A diagnostics socket. It belongs to the network namespace in which it was opened, and requires no privilege once it
/// is open.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    netns: Option<Netns>,
}

impl Channel {
    /// Opens a channel into the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel has no diagnostics sockets, or no file descriptor is left.
    pub fn here() -> Result<Self, SockDiagError> {
        let netns = File::open("/proc/thread-self/ns/net").ok().and_then(|file| inode(&file));
        Ok(Self { socket: connect()?, netns })
    }

    /// Opens a channel into the network namespace that `namespace` refers to.
    ///
    /// A temporary thread enters the namespace and opens the socket. No other thread changes its namespace.
    ///
    /// # Errors
    /// Those of [`Channel::here`], and when the namespace cannot be entered.
    pub fn into_namespace(namespace: impl AsFd) -> Result<Self, SockDiagError> {
        let namespace = namespace.as_fd();
        let netns = namespace.try_clone_to_owned().ok().and_then(|fd| inode(&File::from(fd)));
        Ok(Self { socket: in_namespace(namespace, connect)?, netns })
    }

    /// Returns the inode of the network namespace.
    pub fn netns(&self) -> Option<Netns> {
        self.netns
    }

    /// Dumps the TCP sockets in `states`. A timewait socket counts with its own state.
    ///
    /// `handler` gets each socket once, in no particular order, on the calling thread, while the kernel continues.
    /// Memory use does not depend on the number of sockets. A slow handler makes the dump less consistent. After an
    /// error, the channel is unusable, because it may still hold the rest of the answer.
    ///
    /// # Errors
    /// When the request fails or the answer does not arrive; `handler` may have been called before. Lost parts are not
    /// an error: the report has them.
    pub fn dump(
        &self,
        states: StateSet,
        handler: &mut dyn FnMut(SocketSnapshot),
    ) -> Result<DumpReport, SockDiagError> {
        let mut walk = Walk {
            socket: &self.socket,
            netns: self.netns,
            handler,
            states,
            buffer: vec![0; BUFFER],
            recent: RecentCookies::default(),
            report: DumpReport::default(),
        };
        walk.family(AF_INET, 1)?;
        walk.family(AF_INET6, 2)?;
        Ok(walk.report)
    }
}

/// Returns the inode of a namespace file. The kernel numbers namespaces with 32 bits (`struct ns_common`).
fn inode(file: &File) -> Option<Netns> {
    file.metadata().ok().and_then(|metadata| u32::try_from(metadata.st_ino()).ok()).map(Netns)
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
        // A socket connected to port 0, the kernel, receives no messages from other senders.
        rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(RECEIVE_TIMEOUT))?;
        Ok(socket)
    };
    open().map_err(|errno: Errno| SockDiagError::Open(errno.into()))
}

/// Runs `work` in the network namespace `namespace`, on a temporary thread.
///
/// # Errors
/// When the namespace cannot be entered, and the errors of `work`.
pub(crate) fn in_namespace<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, SockDiagError> + Send,
) -> Result<T, SockDiagError> {
    let enter = || {
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network)).map_err(
            |errno| match errno {
                Errno::PERM => SockDiagError::EnterForbidden,
                Errno::INVAL => SockDiagError::NotNamespace,
                other => SockDiagError::Enter(other.into()),
            },
        )?;
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, enter)
            .map_err(SockDiagError::Thread)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A dump in progress.
struct Walk<'a> {
    socket: &'a OwnedFd,
    netns: Option<Netns>,
    handler: &'a mut dyn FnMut(SocketSnapshot),
    states: StateSet,
    buffer: Vec<u8>,
    recent: RecentCookies,
    report: DumpReport,
}

impl Walk<'_> {
    /// Requests one address family and reads the answer to its end.
    fn family(&mut self, family: u8, sequence: u32) -> Result<(), SockDiagError> {
        let request = request(family, sequence, self.states);
        retry(|| rustix::net::send(self.socket, &request, SendFlags::empty()))
            .map_err(|errno| SockDiagError::Request(errno.into()))?;
        loop {
            // With TRUNC, the second number is the original length of the datagram.
            let received = retry(|| rustix::net::recv(self.socket, &mut self.buffer[..], RecvFlags::TRUNC));
            let length = match received {
                Ok((length, original)) => {
                    self.report.interrupted |= original > length;
                    length
                }
                Err(Errno::NOBUFS) => {
                    // Reported once for lost parts. The parts after them are valid.
                    self.report.interrupted = true;
                    continue;
                }
                // The lost parts included the end of the answer.
                Err(Errno::AGAIN) if self.report.interrupted => return Ok(()),
                Err(Errno::AGAIN) => return Err(SockDiagError::Silent),
                Err(errno) => return Err(SockDiagError::Receive(errno.into())),
            };
            // An empty datagram would mean that the socket is closed, which it is not.
            if length == 0 || self.datagram(length, sequence)? {
                return Ok(());
            }
        }
    }

    /// Handles the messages of a datagram. Returns true at the end of the answer.
    fn datagram(&mut self, length: usize, sequence: u32) -> Result<bool, SockDiagError> {
        for framed in messages(&self.buffer[..length], sequence) {
            self.report.interrupted |= framed.interrupted;
            match framed.message {
                Message::Socket(body) => match decode::message(body) {
                    // The kernel checks the state before it reads the socket, which may change in between.
                    Ok(socket) => {
                        if self.states.contains(socket.state) && self.recent.insert(socket.cookie) {
                            (self.handler)(SocketSnapshot { netns: self.netns, ..socket });
                        }
                    }
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

/// Converts the errno of an answer.
fn refusal(errno: i32) -> SockDiagError {
    // No handler for TCP (inet_diag_lock_handler) or for the address family is registered.
    if [Errno::NOENT, Errno::OPNOTSUPP].map(Errno::raw_os_error).contains(&errno) {
        return SockDiagError::Unsupported;
    }
    SockDiagError::Refused(io::Error::from_raw_os_error(errno))
}

/// Repeats a call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

/// The last [`RECENT`] cookies.
struct RecentCookies {
    cookies: [SocketCookie; RECENT],
    next: usize,
}

impl Default for RecentCookies {
    fn default() -> Self {
        // Cookies start at 1.
        Self { cookies: [SocketCookie(0); RECENT], next: 0 }
    }
}

impl RecentCookies {
    /// Adds a cookie. Returns false if it was already there. A cookie of 0 is never a duplicate.
    fn insert(&mut self, cookie: SocketCookie) -> bool {
        if cookie != SocketCookie(0) {
            if self.cookies.contains(&cookie) {
                return false;
            }
            self.cookies[self.next] = cookie;
            self.next = (self.next + 1) % RECENT;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cookies_are_kept() {
        let mut recent = RecentCookies::default();
        for cookie in 1..=300 {
            assert!(recent.insert(SocketCookie(cookie)), "{cookie}");
        }
        assert!(!recent.insert(SocketCookie(300)));
        assert!(!recent.insert(SocketCookie(45)));
        assert!(recent.insert(SocketCookie(44)));
        assert!(recent.insert(SocketCookie(0)));
        assert!(recent.insert(SocketCookie(0)));
    }

    /// A netlink message with the shortest body of a listener.
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
    fn every_message_is_passed_on_or_counted() {
        const INTERRUPTED: u16 = 0x10;
        let mut seen = Vec::new();
        let mut report = |parts: &[Vec<u8>]| {
            let buffer = parts.concat();
            let length = buffer.len();
            let mut walk = Walk {
                socket: &connect().unwrap(),
                netns: Some(Netns(9)),
                handler: &mut |socket| seen.push((socket.cookie.0, socket.netns)),
                states: StateSet::ALL,
                buffer,
                recent: RecentCookies::default(),
                report: DumpReport::default(),
            };
            assert!(!walk.datagram(length, 1).unwrap());
            walk.report
        };

        let good = DumpReport::default();
        let parts = [listener(1, 10, 2), listener(2, 10, 2)];
        assert_eq!(report(&parts), good);
        let duplicate = [listener(3, 10, 2), listener(4, 10, 2), listener(3, 6, 2)];
        assert_eq!(report(&duplicate), good);
        let parts = [listener(5, 10, 2), listener(6, 99, 2), listener(7, 10, 2)];
        assert_eq!(report(&parts), DumpReport { malformed: 1, ..good });
        let parts = [listener(8, 10, 2), listener(9, 10, INTERRUPTED)];
        assert_eq!(report(&parts), DumpReport { interrupted: true, ..good });
        let parts = [listener(10, 10, 2), listener(11, 10, 2), vec![1, 2, 3]];
        assert_eq!(report(&parts), DumpReport { malformed: 1, interrupted: true });

        let expected = [1, 2, 3, 4, 5, 7, 8, 9, 10, 11].map(|cookie| (cookie, Some(Netns(9))));
        assert_eq!(seen, expected);
    }

    #[test]
    fn refusals_name_their_remedy() {
        assert!(matches!(refusal(2), SockDiagError::Unsupported));
        assert!(refusal(2).to_string().contains("modprobe tcp_diag"));
        assert!(matches!(refusal(13), SockDiagError::Refused(_)));
        // An invalid errno must not panic.
        assert!(matches!(refusal(i32::MAX), SockDiagError::Refused(_)));
    }
}
