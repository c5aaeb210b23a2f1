//! The segments of a handshake that this host dropped.

use arrayvec::ArrayVec;
use tracer_core::{
    event::KernelName,
    lifecycle::{SegmentDrop, SegmentDrops},
};

use crate::report::fields::fields;

/// Returns the drops as a list for a row.
pub(super) fn drops(drops: &SegmentDrops) -> ArrayVec<SegmentDrop, 3> {
    drops.iter().copied().take(3).collect()
}

fields! { SegmentDrop, |drop| {
    /// `syn`, `syn_ack` or `ack`
    segment: &'static str = drop.segment.name();
    /// The kernel's reason (`enum skb_drop_reason`), such as `netfilter_drop`, or `accept_queue_full`
    reason: KernelName = drop.reason;
    /// The kernel function that dropped it
    location: Option<KernelName> = drop.function;
    /// How often
    count: u32 ["segments"] = drop.count;
}}
