//! Where this kernel keeps the fields the programs read.

use std::collections::HashMap;

use tracer_ebpf::{ABSENT, SocketLayout};

use super::btf::Btf;

/// Fields without which a socket cannot be described at all.
const REQUIRED: [&str; 12] = [
    "skc_daddr",
    "skc_dport",
    "skc_num",
    "skc_family",
    "skc_v6_daddr",
    "skc_v6_rcv_saddr",
    "skc_cookie",
    "skc_flags",
    "inet_saddr",
    "inet_sport",
    "sk_err",
    "sk_socket",
];

/// Fields that the programs read once one of their group is there.
const READ_TOGETHER: [&str; 5] = [
    "sk_lingertime",
    "sk_ack_backlog",
    "sk_max_ack_backlog",
    "icsk_accept_queue.rskq_defer_accept",
    "rtt_min.s",
];

/// Resolves every field's offset.
///
/// # Errors
///
/// The name of a field that the programs need and the BTF lacks.
pub fn socket_layout(btf: &Btf) -> Result<SocketLayout, &'static str> {
    let mut structures: HashMap<&str, Option<u32>> = HashMap::new();
    let layout = SocketLayout::resolve(|structure, path| {
        let id = *structures.entry(structure).or_insert_with(|| btf.structure(structure));
        btf.offset_in(id?, path)
    });
    for (_, path, offset) in layout.fields() {
        if offset == ABSENT && (REQUIRED.contains(&path) || READ_TOGETHER.contains(&path)) {
            return Err(path);
        }
    }
    Ok(layout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_every_field_but_one_of_the_cgroup_pair() {
        let bytes = std::fs::read(super::super::btf::VMLINUX).unwrap();
        let layout = socket_layout(&Btf::parse(bytes).unwrap()).unwrap();
        let absent: Vec<_> =
            layout.fields().filter(|(_, _, offset)| *offset == ABSENT).map(|(_, path, _)| path).collect();
        assert_eq!(absent.len(), 1, "{absent:?}");
        assert!(absent[0].starts_with("sk_cgrp_data."), "{absent:?}");
    }

    #[test]
    fn names_what_is_missing() {
        // An empty type section and an empty string table.
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for word in [24_u32, 0, 0, 0, 1] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.push(0);
        assert_eq!(socket_layout(&Btf::parse(bytes).unwrap()), Err("skc_daddr"));
    }
}
