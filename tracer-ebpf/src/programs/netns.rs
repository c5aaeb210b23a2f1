//! The network namespace of a socket.

use tracer_ebpf::{ABSENT, REMEMBERED_NETNS, RecordKind};

use crate::{
    config,
    memory::Memory,
    output::{self, NoSlot, Slot},
};

/// Takes room for a record about anything that starts with a `struct sock_common`, if its network namespace is asked
/// for; gives the inode with it, 0 when it cannot be known. What finds no room is counted as lost.
#[inline(always)]
pub(crate) fn slot_if_wanted<M: Memory>(kind: RecordKind, address: u64) -> Option<(Slot, u32)> {
    let slot = match Slot::in_lane(kind) {
        Ok(slot) => {
            let netns = if M::CHEAP { known::<M>(&slot, address) } else { read::<M>(address) };
            if is_wanted(netns) {
                return Some((slot, netns));
            }
            slot.give_back();
            return None;
        }
        Err(no_slot) => no_slot,
    };
    // Before the ring is asked: it is shared, and what is not wanted must not fill it.
    let netns = read::<M>(address);
    if !is_wanted(netns) {
        return None;
    }
    let in_ring = if matches!(slot, NoSlot::NoLane) { Slot::in_ring() } else { None };
    if in_ring.is_none() {
        output::lost(kind);
    }
    Some((in_ring?, netns))
}

/// Reads the inode, 0 when it cannot be known.
#[inline(always)]
fn read<M: Memory>(address: u64) -> u32 {
    if config!(socket.skc_net) == ABSENT || config!(socket.net_inum) == ABSENT {
        return 0;
    }
    M::load(M::load::<u64>(address, config!(socket.skc_net)), config!(socket.net_inum))
}

/// Likewise, from what the lane's program remembers where it can.
#[inline(always)]
fn known<M: Memory>(slot: &Slot, address: u64) -> u32 {
    let Some(known) = slot.known_netns() else {
        return read::<M>(address);
    };
    if config!(socket.skc_net) == ABSENT
        || config!(socket.net_inum) == ABSENT
        || config!(socket.net_hash_mix) == ABSENT
    {
        return read::<M>(address);
    }
    let net = M::load::<u64>(address, config!(socket.skc_net));
    let hash_mix = M::load::<u32>(net, config!(socket.net_hash_mix));
    // SAFETY: a live map value, which no other program writes to: the slot is of its lane.
    unsafe {
        let known = known.add(hash_mix as usize & (REMEMBERED_NETNS - 1));
        if (*known).net != net || (*known).hash_mix != hash_mix {
            (*known).inode = M::load(net, config!(socket.net_inum));
            (*known).hash_mix = hash_mix;
            (*known).net = net;
        }
        (*known).inode
    }
}

/// Whether sockets of this namespace are asked for.
#[inline(always)]
fn is_wanted(netns: u32) -> bool {
    let only = config!(only_netns);
    only == 0 || netns == only
}
