//! Resolves the offsets of the kernel fields that the programs read.

use std::collections::HashMap;

use tracer_ebpf::{ABSENT, ArgumentCounts, BitField, BitLayout, SocketLayout};

use crate::sources::live::btf::Btf;

/// Optional fields. All others are required.
const OPTIONAL: [&str; 27] = [
    "skc_bound_dev_if",
    "sk_shutdown",
    "sk_lock.owned",
    "icsk_accept_queue.rskq_defer_accept",
    "linger2",
    "flags",
    "pid",
    "group_leader",
    "sk_cgrp_data.cgroup",
    "sk_cgrp_data.val",
    "kn",
    "id",
    "ns.inum",
    "hash_mix",
    "num_retrans",
    "snt_synack",
    "rcv_isn",
    "snt_isn",
    "tw_substate",
    "tw_sport",
    "skc_state",
    "head",
    "network_header",
    "protocol",
    "sk",
    "dev",
    "nd_net.net",
];

/// Resolves the offset of every field.
///
/// # Errors
///
/// The name of a required field that is missing in the BTF.
pub(crate) fn socket_layout(btf: &Btf) -> Result<SocketLayout, &'static str> {
    let mut structures: HashMap<&str, Option<u32>> = HashMap::new();
    let layout = SocketLayout::resolve(|structure, path| {
        let id = *structures.entry(structure).or_insert_with(|| btf.structure(structure));
        btf.offset_in(id?, path)
    });
    for (_, path, offset) in layout.fields() {
        if offset == ABSENT && !OPTIONAL.contains(&path) {
            return Err(path);
        }
    }
    Ok(layout)
}

/// Resolves every bit-field. A field that the BTF lacks is absent.
pub(super) fn bit_layout(btf: &Btf) -> BitLayout {
    let tcp_sock = btf.structure("tcp_sock");
    let of_socket = |name| btf.bit_field_in(tcp_sock?, name);
    // 6.6 turned the bit-fields of `inet_sock` into bits of one word.
    let inet_flag = |enumerator, name| {
        let bit = btf.enumerator(enumerator);
        let word = tcp_sock.and_then(|id| btf.offset_in(id, "inet_flags"));
        match (word, bit) {
            (Some(word), Some(bit @ 0..32)) => {
                Some(BitField { offset: word + bit / 8, mask: 1 << (bit % 8) })
            }
            _ => of_socket(name),
        }
    };
    let of_request = |name| btf.bit_field_in(btf.structure("inet_request_sock")?, name);
    let known = |field: Option<BitField>| field.unwrap_or(BitField::ABSENT);
    BitLayout {
        repair: known(of_socket("repair")),
        fastopen_connect: known(of_socket("fastopen_connect")),
        syn_data: known(of_socket("syn_data")),
        defer_connect: known(inet_flag("INET_FLAGS_DEFER_CONNECT", "defer_connect")),
        transparent: known(inet_flag("INET_FLAGS_TRANSPARENT", "transparent")),
        acked: known(of_request("acked")),
    }
}

/// Counts the arguments of the hooks that differ between kernels.
pub(super) fn argument_counts(btf: &Btf) -> ArgumentCounts {
    ArgumentCounts {
        send_reset: btf.tracepoint_arguments("tcp_send_reset").unwrap_or(0),
        kfree_skb: btf.tracepoint_arguments("kfree_skb").unwrap_or(0),
        accept: btf.function_arguments("inet_csk_accept").unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_every_field_except_one_of_the_cgroup_pair() {
        let bytes = std::fs::read(crate::sources::live::btf::VMLINUX).unwrap();
        let layout = socket_layout(&Btf::parse(bytes).unwrap()).unwrap();
        let absent: Vec<_> =
            layout.fields().filter(|(_, _, offset)| *offset == ABSENT).map(|(_, path, _)| path).collect();
        assert_eq!(absent.len(), 1, "{absent:?}");
        assert!(absent[0].starts_with("sk_cgrp_data."), "{absent:?}");
    }

    #[test]
    fn this_kernel_has_every_bit_field() {
        let btf = Btf::parse(std::fs::read(crate::sources::live::btf::VMLINUX).unwrap()).unwrap();
        for (name, field) in bit_layout(&btf).fields() {
            assert!(field.offset != ABSENT && field.mask.is_power_of_two(), "{name}: {field:?}");
        }
    }

    /// BTF with an empty type section and an empty string table.
    fn empty_btf() -> Btf {
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for word in [24_u32, 0, 0, 0, 1] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.push(0);
        Btf::parse(bytes).unwrap()
    }

    #[test]
    fn a_missing_field_is_named() {
        assert_eq!(socket_layout(&empty_btf()), Err("skc_daddr"));
    }

    #[test]
    fn a_missing_bit_field_is_absent() {
        assert_eq!(bit_layout(&empty_btf()), BitLayout::ABSENT);
    }
}
