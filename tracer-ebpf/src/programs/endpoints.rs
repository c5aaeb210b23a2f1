//! The endpoints of a connection, and the fields that records of every kind have.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_ebpf::{AF_INET6, Ipv6Addresses, Lane, RecordKind, flags};

use crate::{config, memory::Memory, output::Slot};

/// Both endpoints; an address is two words in network order.
#[derive(Clone, Copy)]
pub(crate) struct Endpoints {
    pub(crate) family: u8,
    pub(crate) local: [u64; 2],
    pub(crate) remote: [u64; 2],
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
}

impl Endpoints {
    /// Reads the endpoints from a structure that starts with a `struct sock_common`. Each such structure has the local port
    /// in a field of its own, so the caller passes it.
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

/// Writes the fields that records of every kind have, zeros in those that depend on the kind, and the first part: IPv6
/// addresses.
#[inline(always)]
pub(crate) fn write_base(
    slot: &mut Slot,
    kind: RecordKind,
    socket: u64,
    netns: u32,
    endpoints: Endpoints,
    mut bits: u32,
) {
    let record = slot.record();
    if netns != 0 {
        bits |= flags::NETNS;
    }
    if matches!(slot.lane(), Lane::TransitionTwin) {
        bits |= flags::TWIN;
    }
    let long = endpoints.family == AF_INET6;
    if long {
        bits |= flags::IPV6_ADDRESSES;
    }
    // SAFETY: the slot has room for a record with all parts. Arrays are written as words: the compiler would turn a copy
    // into a loop over bytes.
    unsafe {
        (*record).time_ns = bpf_ktime_get_ns();
        (*record).socket = socket;
        // Volatile: the compiler would otherwise merge the two stores into a call of its byte loop.
        (&raw mut (*record).cookie).write_volatile(0);
        (&raw mut (*record).value).write_volatile(0);
        (&raw mut (*record).local_address).cast::<u32>().write(endpoints.local[0] as u32);
        (&raw mut (*record).remote_address).cast::<u32>().write(endpoints.remote[0] as u32);
        (*record).flags = bits;
        (*record).netns = netns;
        (*record).local_port = endpoints.local_port;
        (*record).remote_port = endpoints.remote_port;
        (*record).error = 0;
        (*record).shutdown = 0;
        (*record).attempts = 0;
        (*record).kind = kind as u8;
        (*record).old_state = 0;
        (*record).new_state = 0;
        (*record).family = endpoints.family;
        (*record).extra = 0;
        if long {
            let addresses = slot.part::<Ipv6Addresses>();
            (&raw mut (*addresses).local).cast::<[u64; 2]>().write(endpoints.local);
            (&raw mut (*addresses).remote).cast::<[u64; 2]>().write(endpoints.remote);
        }
    }
}
