//! Resolves the offsets of the kernel fields that the programs read.

use std::collections::HashMap;

use tracer_ebpf::{ABSENT, SocketLayout};

use crate::sources::live::btf::Btf;

/// Optional fields. All others are required.
const OPTIONAL: [&str; 11] = [
    "sk_shutdown",
    "sk_cgrp_data.cgroup",
    "sk_cgrp_data.val",
    "kn",
    "id",
    "ns.inum",
    "hash_mix",
    "num_retrans",
    "snt_synack",
    "tw_substate",
    "tw_sport",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_every_field_except_one_of_the_cgroup_pair() {
        let bytes = std::fs::read(super::super::btf::VMLINUX).unwrap();
        let layout = socket_layout(&Btf::parse(bytes).unwrap()).unwrap();
        let absent: Vec<_> =
            layout.fields().filter(|(_, _, offset)| *offset == ABSENT).map(|(_, path, _)| path).collect();
        assert_eq!(absent.len(), 1, "{absent:?}");
        assert!(absent[0].starts_with("sk_cgrp_data."), "{absent:?}");
    }

    #[test]
    fn a_missing_field_is_named() {
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
