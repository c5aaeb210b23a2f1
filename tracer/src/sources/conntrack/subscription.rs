//! Subscribes to new entries of the conntrack table, and dumps those that exist.

use std::{fs, io, path::Path, time::Duration};

use rustix::{
    fd::OwnedFd,
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink,
        sockopt::{
            Timeout, set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_timeout,
        },
    },
};

use super::decode::{GET, GET_STATS, Message, NLM_F_ACK, NLM_F_DUMP, Translation, messages, request};

/// `NF_NETLINK_CONNTRACK_NEW`, the group of new entries.
const NEW_ENTRIES: u32 = 1;
/// Space for announcements that wait for the reader: about ten thousand.
const RECEIVE_BUFFER: usize = 16 << 20;
/// Size of a datagram at most.
const BUFFER: usize = 64 * 1024;
/// Most translations of a dump. More would not fit into the tracker's table.
const MAX_EXISTING: usize = 131_072;
/// Longest wait for the next part of an answer.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why backends cannot be named.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// `CAP_NET_ADMIN` is missing.
    #[error("conntrack reports to nobody without CAP_NET_ADMIN; run as root or grant it")]
    Forbidden,
    /// The kernel has no `nf_conntrack_netlink`.
    #[error("this kernel has no nf_conntrack_netlink; load it with `modprobe nf_conntrack_netlink`")]
    Absent,
    /// The kernel does not announce entries.
    #[error("conntrack announces no entries; set it with `sysctl net.netfilter.nf_conntrack_events=1`")]
    Silent,
    /// Anything else.
    #[error("conntrack cannot be read: {0}")]
    Other(#[source] io::Error),
}

impl From<Errno> for ConntrackError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::PERM | Errno::ACCESS => Self::Forbidden,
            // `nfnetlink_rcv_msg` has the second and third for a subsystem that it does not know.
            Errno::PROTONOSUPPORT | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOENT => Self::Absent,
            other => Self::Other(other.into()),
        }
    }
}

/// A subscription to new entries of the conntrack table of one network namespace. Needs privileges only until it is open.
#[derive(Debug)]
pub(crate) struct Subscription {
    socket: OwnedFd,
    buffer: Vec<u8>,
    /// How often translations were lost, because the receive buffer was full or a dump had too many.
    overruns: u64,
}

impl Subscription {
    /// Subscribes in the network namespace of this thread.
    ///
    /// # Errors
    ///
    /// [`ConntrackError`]: the cause and the remedy.
    pub(crate) fn open() -> Result<Self, ConntrackError> {
        probe()?;
        let socket = connect(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        // Forced needs a privilege that an unprivileged subscriber would lack anyway.
        if set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
        }
        rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, NEW_ENTRIES))?;
        Ok(Self { socket, buffer: vec![0; BUFFER], overruns: 0 })
    }

    /// Passes on the translations that were announced since the last call. Never waits.
    pub(crate) fn drain(&mut self, deliver: &mut dyn FnMut(Translation)) {
        loop {
            match rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return,
                Ok((length, _)) => {
                    for message in messages(self.buffer.get(..length).unwrap_or_default()) {
                        if let Message::Translated(translation) = message {
                            deliver(translation);
                        }
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => self.overruns += 1,
                // Usually AGAIN: nothing is left.
                Err(_) => return,
            }
        }
    }

    /// Returns how often translations were lost, because the receive buffer was full or a dump had too many.
    pub(crate) fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Returns the translations that exist, at most 131,072.
    ///
    /// # Errors
    ///
    /// Those of [`Self::open`].
    pub(crate) fn existing(&mut self) -> Result<Vec<Translation>, ConntrackError> {
        let (mut found, mut more) = (Vec::new(), false);
        ask(GET, NLM_F_DUMP, &mut |message| {
            if let Message::Translated(translation) = message {
                if found.len() < MAX_EXISTING {
                    found.push(translation);
                } else {
                    more = true;
                }
            }
        })?;
        self.overruns += u64::from(more);
        Ok(found)
    }
}

/// Returns the number of entries in the table, if the kernel announces new ones.
///
/// # Errors
///
/// Those of [`Subscription::open`].
pub(crate) fn probe() -> Result<u32, ConntrackError> {
    let mut entries = 0;
    ask(GET_STATS, NLM_F_ACK, &mut |message| {
        if let Message::Entries(count) = message {
            entries = count;
        }
    })?;
    let announces = fs::read_to_string(Path::new("/proc/sys/net/netfilter/nf_conntrack_events"));
    match announces {
        Ok(value) if value.trim() == "0" => Err(ConntrackError::Silent),
        // Without CONFIG_NF_CONNTRACK_EVENTS.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ConntrackError::Silent),
        _ => Ok(entries),
    }
}

fn connect(flags: SocketFlags) -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::NETFILTER))
}

/// Sends a request and passes on the messages of its answer.
fn ask(kind: u16, flags: u16, take: &mut dyn FnMut(Message)) -> Result<(), ConntrackError> {
    let socket = connect(SocketFlags::CLOEXEC)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(RECEIVE_TIMEOUT))?;
    let kernel = netlink::SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(&socket, &request(kind, flags, 1), SendFlags::empty(), &kernel)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = match rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((length, _)) => length,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        for message in messages(buffer.get(..length).unwrap_or_default()) {
            match message {
                Message::Done => return Ok(()),
                Message::Error(error) => return Err(Errno::from_raw_os_error(error).into()),
                other => take(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_its_remedy() {
        let text = |error: Errno| ConntrackError::from(error).to_string();
        assert!(text(Errno::PERM).contains("CAP_NET_ADMIN"));
        assert!(text(Errno::INVAL).contains("modprobe nf_conntrack_netlink"));
        assert!(text(Errno::PROTONOSUPPORT).contains("modprobe"));
        assert!(text(Errno::MFILE).contains("Too many open files"));
        assert!(ConntrackError::Silent.to_string().contains("sysctl"));
    }
}
