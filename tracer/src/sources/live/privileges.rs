//! Which capabilities are needed to start, and giving them back afterwards.

use std::collections::HashSet;

use caps::{CapSet, Capability};

/// The capabilities that loading and attaching need, in the order they are asked for.
///
/// Measured on 6.18 as an ordinary user: `CAP_BPF` and `CAP_PERFMON` load and attach in mode `btf`; the
/// classic tracepoint also reads tracefs, which is root's.
const NEEDED: [(Capability, &str); 2] = [
    (Capability::CAP_BPF, "to load eBPF programs"),
    (Capability::CAP_PERFMON, "to attach them to tracepoints"),
];

/// Capabilities this process lacks.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {plural} {names} {verb} missing, needed {purposes}: run `sudo tcptrace-bpf`, or grant the capabilities for good with \
     `sudo setcap cap_bpf,cap_perfmon+ep $(command -v tcptrace-bpf)` or AmbientCapabilities= in a systemd unit"
)]
pub struct Missing {
    plural: &'static str,
    verb: &'static str,
    names: String,
    purposes: String,
}

/// Checks that the process may load and attach the programs.
///
/// # Errors
///
/// [`Missing`] names what is lacking and the ways to get it.
pub fn check() -> Result<(), Missing> {
    missing_from(&effective())
}

/// The capabilities in effect for this thread; none when that cannot be read.
pub fn effective() -> HashSet<Capability> {
    caps::read(None, CapSet::Effective).unwrap_or_default()
}

fn missing_from(effective: &HashSet<Capability>) -> Result<(), Missing> {
    // CAP_SYS_ADMIN has included both since before they existed (kernel 5.8).
    if effective.contains(&Capability::CAP_SYS_ADMIN) {
        return Ok(());
    }
    let missing: Vec<_> = NEEDED.iter().filter(|(capability, _)| !effective.contains(capability)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let join = |items: Vec<String>| items.join(" and ");
    Err(Missing {
        plural: if missing.len() == 1 { "capability" } else { "capabilities" },
        verb: if missing.len() == 1 { "is" } else { "are" },
        names: join(missing.iter().map(|(capability, _)| capability.to_string()).collect()),
        purposes: join(missing.iter().map(|(_, purpose)| (*purpose).to_owned()).collect()),
    })
}

/// Gives back every capability except `keep`, for this thread and those it starts: from here on the
/// process only reads what it already holds.
///
/// # Errors
///
/// When the kernel refuses, which it has no reason to: giving back is always allowed.
pub fn keep_only(keep: &[Capability]) -> Result<(), caps::errors::CapsError> {
    caps::clear(None, CapSet::Ambient)?;
    let held = caps::read(None, CapSet::Permitted)?;
    let kept: HashSet<Capability> = keep.iter().copied().filter(|wanted| held.contains(wanted)).collect();
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::set(None, CapSet::Inheritable, &HashSet::new())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_each_missing_capability_and_both_remedies() {
        let text = missing_from(&HashSet::new()).unwrap_err().to_string();
        for part in ["CAP_BPF and CAP_PERFMON are missing", "sudo tcptrace-bpf", "setcap", "systemd"] {
            assert!(text.contains(part), "{part} not in: {text}");
        }
        let text = missing_from(&HashSet::from([Capability::CAP_BPF])).unwrap_err().to_string();
        assert!(text.contains("capability CAP_PERFMON is missing"), "{text}");
        assert!(!text.contains("CAP_BPF and"), "{text}");
    }

    #[test]
    fn either_pair_or_sys_admin_is_enough() {
        assert!(missing_from(&HashSet::from([Capability::CAP_BPF, Capability::CAP_PERFMON])).is_ok());
        assert!(missing_from(&HashSet::from([Capability::CAP_SYS_ADMIN])).is_ok());
    }

    #[test]
    fn giving_back_leaves_exactly_what_is_kept() {
        // In a thread of its own: capabilities belong to threads.
        std::thread::spawn(|| {
            let before = effective();
            keep_only(&[Capability::CAP_NET_ADMIN]).unwrap();
            let expected: HashSet<_> =
                before.into_iter().filter(|capability| *capability == Capability::CAP_NET_ADMIN).collect();
            assert_eq!(effective(), expected);
            assert_eq!(caps::read(None, CapSet::Permitted).unwrap(), expected);
        })
        .join()
        .unwrap();
    }
}
