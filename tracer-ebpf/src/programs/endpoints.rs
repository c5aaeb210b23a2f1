//! The two ends of a connection, and the part of a record that every kind has.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_ebpf::{ABSENT, AF_INET6, Record, RecordKind, flags};

use crate::{config, memory::Memory};

/// Endpoints in the order the record wants them; an address is two words in network order.
#[derive(Clone, Copy)]
pub(crate) struct Endpoints {
    pub(crate) family: u8,
    pub(crate) local: [u64; 2],
    pub(crate) remote: [u64; 2],
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
}

impl Endpoints {
    /// Reads them from anything that starts with a `struct sock_common`; the local port is kept
    /// elsewhere by each.
    #[inline(always)]
    pub(crate) fn of_common<M: Memory>(address: u64, local_port: u16) -> Self {
        let family = M::load::<u16>(address, config!(socket.skc_family)) as u8;
        let (local, remote) = if family == AF_INET6 {
            (
                M::load(address, config!(socket.skc_v6_rcv_saddr)),
                M::load(address, config!(socket.skc_v6_daddr)),
            )
        } else {
            (
                [u64::from(M::load::<u32>(address, config!(socket.skc_rcv_saddr))), 0],
                [u64::from(M::load::<u32>(address, config!(socket.skc_daddr))), 0],
            )
        };
        Self {
            family,
            local,
            remote,
            local_port,
            remote_port: u16::from_be(M::load(address, config!(socket.skc_dport))),
        }
    }
}

/// The inode of the network namespace of anything that starts with a `struct sock_common`, 0 when it
/// cannot be known.
#[inline(always)]
pub(crate) fn netns<M: Memory>(address: u64) -> u32 {
    if config!(socket.skc_net) == ABSENT || config!(socket.net_inum) == ABSENT {
        return 0;
    }
    M::load::<u32>(M::load::<u64>(address, config!(socket.skc_net)), config!(socket.net_inum))
}

/// Whether sockets of this namespace are asked for.
#[inline(always)]
pub(crate) fn is_wanted(netns: u32) -> bool {
    let only = config!(only_netns);
    only == 0 || netns == only
}

/// Writes every field of a record: what each kind has, and zeros.
///
/// # Safety
///
/// `record` points to a record in the ring buffer.
#[inline(always)]
pub(crate) unsafe fn write_base(
    record: *mut Record,
    kind: RecordKind,
    socket: u64,
    netns: u32,
    endpoints: Endpoints,
) {
    // SAFETY: as the caller promises. Arrays are written as words: the compiler would make a byte
    // loop of a copy.
    unsafe {
        (*record).time_ns = bpf_ktime_get_ns();
        (*record).socket = socket;
        (*record).cookie = 0;
        (*record).value = 0;
        (&raw mut (*record).local_address).cast::<[u64; 2]>().write(endpoints.local);
        (&raw mut (*record).remote_address).cast::<[u64; 2]>().write(endpoints.remote);
        (&raw mut (*record).comm).cast::<[u64; 2]>().write([0; 2]);
        (*record).flags = if netns == 0 { 0 } else { flags::NETNS };
        (*record).netns = netns;
        (*record).tgid = 0;
        (*record).uid = 0;
        (*record).accept_queue = 0;
        (*record).accept_queue_limit = 0;
        (*record).local_port = endpoints.local_port;
        (*record).remote_port = endpoints.remote_port;
        (*record).error = 0;
        (*record).shutdown = 0;
        (*record).attempts = 0;
        (*record).kind = kind as u8;
        (*record).old_state = 0;
        (*record).new_state = 0;
        (*record).family = endpoints.family;
        (*record).reserved = 0;
    }
}
