//! The kernel's names for why it sent a reset or dropped a segment, from its BTF: the numbers differ between kernels.

use tracer_core::event::KernelName;

use crate::sources::live::btf::Btf;

/// The most reasons of an enumeration. 7.1 has 130 for drops.
const MAX_REASONS: u32 = 1024;

/// The names of the kernel's reasons, by number.
#[derive(Clone, Debug, Default)]
pub struct Reasons {
    resets: Vec<KernelName>,
    drops: Vec<KernelName>,
}

impl Reasons {
    /// Reads the names. Empty for a kernel without the enumerations.
    pub fn of(btf: &Btf) -> Self {
        Self {
            resets: names(btf, "sk_rst_reason", "SK_RST_REASON_"),
            drops: names(btf, "skb_drop_reason", "SKB_DROP_REASON_"),
        }
    }

    /// Returns the name of a reason for a reset (`enum sk_rst_reason`).
    pub fn reset(&self, reason: u64) -> KernelName {
        name(&self.resets, reason)
    }

    /// Returns the name of a reason for a drop (`enum skb_drop_reason`). A module's own reason has only a number: the module
    /// is the upper half (`SKB_DROP_REASON_SUBSYS_MASK`).
    pub fn drop(&self, reason: u64) -> KernelName {
        name(&self.drops, reason)
    }
}

fn name(names: &[KernelName], reason: u64) -> KernelName {
    let known = usize::try_from(reason).ok().and_then(|index| names.get(index)).copied();
    known
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| KernelName::new(format!("reason_{reason}").as_bytes()))
}

/// Returns the enumerators in lower case without their common prefix.
fn names(btf: &Btf, enumeration: &str, prefix: &str) -> Vec<KernelName> {
    let mut names = Vec::new();
    for (value, enumerator) in btf.enumerators(enumeration) {
        if value >= MAX_REASONS {
            continue;
        }
        let index = value as usize;
        if names.len() <= index {
            names.resize(index + 1, KernelName::default());
        }
        let text = enumerator.strip_prefix(prefix.as_bytes()).unwrap_or(enumerator);
        names[index] = KernelName::new(&text.to_ascii_lowercase());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::live::btf::VMLINUX;

    #[test]
    fn the_names_are_those_of_this_kernel() {
        let reasons = Reasons::of(&Btf::parse(std::fs::read(VMLINUX).unwrap()).unwrap());
        assert!(reasons.resets.iter().any(|name| name.text() == "no_socket"), "{reasons:?}");
        assert!(reasons.drops.iter().any(|name| name.text() == "netfilter_drop"), "{reasons:?}");
        assert_eq!(reasons.drop(1 << 20).text(), "reason_1048576");
        assert_eq!(Reasons::default().reset(3).text(), "reason_3");
    }
}
