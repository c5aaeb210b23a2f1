//! Checks the capabilities at the start, and drops them afterwards.

use std::collections::HashSet;

use caps::{CapSet, Capability};

/// The capabilities that are required to load and attach the programs, in the order of the error message.
///
/// Measured on 6.18 as an unprivileged user: `CAP_BPF` and `CAP_PERFMON` suffice in mode `btf`. The classic tracepoint
/// also reads tracefs, which only root may read.
const NEEDED: [(Capability, &str); 2] = [
    (Capability::CAP_BPF, "to load eBPF programs"),
    (Capability::CAP_PERFMON, "to attach them to tracepoints"),
];

/// The capabilities that are missing.
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
/// [`Missing`] names the missing capabilities and how to get them.
pub(crate) fn check() -> Result<(), Missing> {
    missing_from(&effective())
}

/// Returns the effective capabilities of this thread; empty if they cannot be read.
pub(crate) fn effective() -> HashSet<Capability> {
    caps::read(None, CapSet::Effective).unwrap_or_default()
}

fn missing_from(effective: &HashSet<Capability>) -> Result<(), Missing> {
    // CAP_SYS_ADMIN includes both. They were split off in 5.8.
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

/// Drops all capabilities except `keep`, for this thread and the threads that it starts.
///
/// # Errors
///
/// When the kernel refuses. Dropping capabilities is always allowed, so this is not expected.
pub(crate) fn keep_only(keep: &[Capability]) -> Result<(), caps::errors::CapsError> {
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
    fn the_error_names_missing_capabilities_and_remedies() {
        let text = missing_from(&HashSet::new()).unwrap_err().to_string();
        for part in ["CAP_BPF and CAP_PERFMON are missing", "sudo tcptrace-bpf", "setcap", "systemd"] {
            assert!(text.contains(part), "{part} not in: {text}");
        }
        let text = missing_from(&HashSet::from([Capability::CAP_BPF])).unwrap_err().to_string();
        assert!(text.contains("capability CAP_PERFMON is missing"), "{text}");
        assert!(!text.contains("CAP_BPF and"), "{text}");
    }

    #[test]
    fn both_capabilities_or_sys_admin_suffice() {
        assert!(missing_from(&HashSet::from([Capability::CAP_BPF, Capability::CAP_PERFMON])).is_ok());
        assert!(missing_from(&HashSet::from([Capability::CAP_SYS_ADMIN])).is_ok());
    }

    #[test]
    fn only_the_kept_capabilities_remain() {
        // On a separate thread, because capabilities are per thread.
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
