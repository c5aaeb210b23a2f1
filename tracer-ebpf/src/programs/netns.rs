//! The network namespace of a socket.

use tracer_ebpf::{ABSENT, Lane, REMEMBERED_NETNS};

use crate::{
    config,
    memory::{Memory, Probed, Typed},
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
    Some((in_ring(lane, &slot)?, netns))
}

/// Reserves room for a record about the segment in the `struct sk_buff` at the typed address `skb`, likewise. A segment that
/// leaves has its sender's namespace, another one that of its device.
#[inline(always)]
pub(crate) fn slot_if_wanted_by_skb(writer: Writer, skb: u64) -> Option<(Slot, u32)> {
    let netns = of_skb(skb);
    if !is_wanted(netns) {
        return None;
    }
    match Slot::in_lane(writer) {
        Ok(slot) => Some((slot, netns)),
        Err(no_slot) => Some((in_ring(writer.lane, &no_slot)?, netns)),
    }
}

/// Reserves room in the ring for a record that has no place in its lane, if it may use the ring. Counts the record as lost
/// when it has no room.
#[inline(always)]
fn in_ring(lane: Lane, no_slot: &NoSlot) -> Option<Slot> {
    // The twin's lane is small, and its records come in bursts.
    let overflows = matches!(no_slot, NoSlot::NoLane) || matches!(lane, Lane::TransitionTwin);
    let slot = if overflows { Slot::in_ring(lane) } else { None };
    if slot.is_none() {
        output::count_lost(lane);
    }
    slot
}

/// Reads the inode of a segment's namespace. Returns 0 when unknown.
#[inline(always)]
fn of_skb(skb: u64) -> u32 {
    if config!(socket.skc_net) == ABSENT
        || config!(socket.net_inum) == ABSENT
        || config!(socket.dev_net) == ABSENT
    {
        return 0;
    }
    let sk = Typed::load::<u64>(skb, config!(socket.skb_sk));
    let net = if sk != 0 {
        Probed::load::<u64>(sk, config!(socket.skc_net))
    } else {
        Probed::load::<u64>(Typed::load(skb, config!(socket.skb_dev)), config!(socket.dev_net))
    };
    Probed::load(net, config!(socket.net_inum))
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
