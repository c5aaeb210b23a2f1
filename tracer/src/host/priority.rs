//! The scheduling priority of the tracing thread.
//!
//! A reader that waits for a processor loses events once the buffer is full. A lower nice value shortens that wait beside
//! busy programs: at -10, a thread gets nine times the processor time of a thread at 0 that competes with it
//! (`sched_prio_to_weight`, 6.18 kernel/sched/core.c).
//!
//! Nice values count only among the threads of one scheduling group: those of a cgroup with the `cpu` controller, or of a
//! session where `kernel.sched_autogroup_enabled` is 1. Between groups, their weights count: `CPUWeight=` in a unit.

use rustix::{io::Errno, process};

/// The nice value of the tracing thread, unless `--nice` sets another.
pub(crate) const DEFAULT_NICE: i32 = -10;

/// A changed nice value of the calling thread, which threads started meanwhile inherit. Restores the old value on drop.
#[derive(Debug)]
pub(crate) struct Priority {
    before: i32,
}

/// Why the nice value could not be lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the nice value {wanted} was refused ({errno}): grant CAP_SYS_NICE, or set LimitNICE= in the systemd unit"
)]
pub(crate) struct PriorityError {
    wanted: i32,
    errno: Errno,
}

impl Priority {
    /// Sets the nice value of this thread. Without a `wanted` value, sets [`DEFAULT_NICE`] unless the thread already has
    /// a nice value other than 0, which was set from outside.
    ///
    /// Returns `Ok(None)` if the value does not change.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a lower value: without `CAP_SYS_NICE` and beyond `RLIMIT_NICE` (setpriority(2)).
    pub(crate) fn set(wanted: Option<i32>) -> Result<Option<Self>, PriorityError> {
        let before = nice();
        let wanted = match wanted {
            Some(wanted) => wanted,
            None if before == 0 => DEFAULT_NICE,
            None => before,
        };
        if wanted == before {
            return Ok(None);
        }
        match process::setpriority_process(None, wanted) {
            Ok(()) => Ok(Some(Self { before })),
            Err(errno) => Err(PriorityError { wanted, errno }),
        }
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        let _ = process::setpriority_process(None, self.before);
    }
}

/// Sets a negative nice value of this thread to 0: for a thread that helps the tracing thread, which must not wait for it.
pub(crate) fn give_up_priority() {
    if nice() < 0 {
        // A higher value needs no privilege.
        let _ = process::setpriority_process(None, 0);
    }
}

/// Returns the nice value of the calling thread.
fn nice() -> i32 {
    process::getpriority_process(None).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use caps::{CapSet, Capability};

    use super::*;

    fn may_lower() -> bool {
        caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_NICE).unwrap()
    }

    /// Runs on its own thread, because an unprivileged one cannot return.
    fn on_a_thread(test: impl FnOnce() + Send + 'static) {
        thread::spawn(test).join().unwrap();
    }

    #[test]
    fn threads_inherit_the_value_until_it_is_restored() {
        on_a_thread(|| {
            let before = nice();
            // A higher value needs no privilege.
            let priority = Priority::set(Some(before + 1)).unwrap().unwrap();
            assert_eq!(thread::spawn(nice).join().unwrap(), before + 1);
            drop(priority);
            assert_eq!(nice(), if may_lower() { before } else { before + 1 });
        });
    }

    #[test]
    fn a_value_set_from_outside_is_kept() {
        on_a_thread(|| {
            let outside = nice().max(0) + 3;
            process::setpriority_process(None, outside).unwrap();
            assert!(Priority::set(None).unwrap().is_none());
            assert_eq!(nice(), outside);
        });
    }

    #[test]
    fn only_a_negative_value_is_given_up() {
        on_a_thread(|| {
            process::setpriority_process(None, 3).unwrap();
            give_up_priority();
            assert_eq!(nice(), 3);
            match Priority::set(Some(-5)) {
                Ok(priority) => {
                    give_up_priority();
                    assert_eq!(nice(), 0);
                    drop(priority);
                }
                Err(error) => assert!(!may_lower(), "{error}"),
            }
        });
    }
}
