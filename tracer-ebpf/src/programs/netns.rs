//! The network namespace of a socket.

use tracer_ebpf::{ABSENT, Lane, REMEMBERED_NETNS};

use crate::{
    config,
    memory::Memory,
    output::{self, NoSlot, Slot, Writer},
};

/// Reserves room for a record about a structure that starts with a `struct sock_common`, if the filter admits its network
/// namespace. Returns the namespace's inode with it, 0 when unknown. Counts the record as lost when the buffer is full.
#[inline(always)]
pub(crate) fn slot_if_wanted<M: Memory>(writer: Writer, address: u64) -> Option<(Slot, u32)> {
    let lane = writer.lane;
    let slot = match Slot::in_lane(writer) {
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
    // Filter before reserving: the ring is shared, and filtered records must not fill it.
    let netns = read::<M>(address);
    if !is_wanted(netns) {
        return None;
    }
    // The twin's lane is small, and its records come in bursts.
    let overflows = matches!(slot, NoSlot::NoLane) || matches!(lane, Lane::TransitionTwin);
    let in_ring = if overflows { Slot::in_ring(lane) } else { None };
    if in_ring.is_none() {
        output::count_lost(lane);
    }
    Some((in_ring?, netns))
}

/// Reads the inode of a socket's namespace. Returns 0 when unknown.
#[inline(always)]
fn read<M: Memory>(address: u64) -> u32 {
    if config!(socket.skc_net) == ABSENT || config!(socket.net_inum) == ABSENT {
        return 0;
    }
    M::load(M::load::<u64>(address, config!(socket.skc_net)), config!(socket.net_inum))
}

/// Returns the inode of a socket's namespace from the lane's cache, or reads it and caches it. Returns 0 when unknown.
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
    // SAFETY: a live map value that only this program writes to: the slot is in the program's own lane.
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

/// Whether the filter admits sockets of this namespace.
#[inline(always)]
fn is_wanted(netns: u32) -> bool {
    let only = config!(only_netns);
    only == 0 || netns == only
}
