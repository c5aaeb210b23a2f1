//! The headers of a segment in a `struct sk_buff`.

use tracer_ebpf::{ABSENT, AF_INET, AF_INET6};

use crate::{
    config,
    endpoints::Endpoints,
    memory::{Memory as _, Probed, Typed},
};

/// Flags of the TCP header (RFC 9293, section 3.1).
pub(crate) const SYN: u8 = 1 << 1;
pub(crate) const ACK: u8 = 1 << 4;

/// `include/uapi/linux/if_ether.h`, in network order.
const ETH_P_IP: u16 = 0x0800_u16.to_be();
const ETH_P_IPV6: u16 = 0x86dd_u16.to_be();
/// `include/uapi/linux/in.h`.
const IPPROTO_TCP: u8 = 6;
/// Bytes of an IPv6 header without extension headers.
const IPV6_HEADER: u32 = 40;

/// A TCP segment.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    /// The network header.
    ip: u64,
    /// The TCP header.
    tcp: u64,
    family: u8,
    /// The flags of the TCP header.
    pub(crate) flags: u8,
}

/// Whether this kernel's layout of a `struct sk_buff` is known.
#[inline(always)]
pub(crate) fn is_known() -> bool {
    config!(socket.skb_head) != ABSENT
        && config!(socket.skb_network_header) != ABSENT
        && config!(socket.skb_protocol) != ABSENT
        && config!(socket.skb_sk) != ABSENT
        && config!(socket.skb_dev) != ABSENT
}

impl Segment {
    /// Finds the TCP header of the `struct sk_buff` at the typed address `skb`. `None` for other protocols, and behind IPv6
    /// extension headers.
    #[inline(always)]
    pub(crate) fn in_skb(skb: u64) -> Option<Self> {
        let protocol = Typed::load::<u16>(skb, config!(socket.skb_protocol));
        if protocol != ETH_P_IP && protocol != ETH_P_IPV6 {
            return None;
        }
        let header = Typed::load::<u16>(skb, config!(socket.skb_network_header));
        let ip = Typed::load::<u64>(skb, config!(socket.skb_head)) + u64::from(header);
        // IPv4: version and length are the first byte, the protocol is the tenth. IPv6: the protocol is the seventh.
        let start = Probed::load::<[u8; 12]>(ip, 0);
        let (tcp, family) = if protocol == ETH_P_IP {
            if start[9] != IPPROTO_TCP {
                return None;
            }
            (ip + u64::from(start[0] & 0xf) * 4, AF_INET)
        } else {
            if start[6] != IPPROTO_TCP {
                return None;
            }
            (ip + u64::from(IPV6_HEADER), AF_INET6)
        };
        Some(Self { ip, tcp, family, flags: Probed::load::<u8>(tcp, 13) })
    }

    /// The source as the local endpoint, and the destination as the remote one.
    #[inline(always)]
    pub(crate) fn from_source(self) -> Endpoints {
        let ports = Probed::load::<[u16; 2]>(self.tcp, 0);
        let (local, remote) = if self.family == AF_INET6 {
            (Probed::load::<[u64; 2]>(self.ip, 8), Probed::load::<[u64; 2]>(self.ip, 24))
        } else {
            (
                [u64::from(Probed::load::<u32>(self.ip, 12)), 0],
                [u64::from(Probed::load::<u32>(self.ip, 16)), 0],
            )
        };
        Endpoints {
            family: self.family,
            local,
            remote,
            local_port: u16::from_be(ports[0]),
            remote_port: u16::from_be(ports[1]),
        }
    }

    /// The destination as the local endpoint, and the source as the remote one.
    #[inline(always)]
    pub(crate) fn at_destination(self) -> Endpoints {
        let Endpoints { family, local, remote, local_port, remote_port } = self.from_source();
        Endpoints { family, local: remote, remote: local, local_port: remote_port, remote_port: local_port }
    }
}
