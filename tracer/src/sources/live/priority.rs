//! The scheduling priority of the tracing thread.
//!
//! A reader that waits for a processor loses events once the buffer is full. A lower nice value gives it the processor
//! time that it needs beside busy programs, and leaves them the rest: at -10, a thread that wants a processor gets nine
//! times the share of a thread at 0 (`sched_prio_to_weight`, 6.18 kernel/sched/core.c).

use rustix::{io::Errno, process};

/// The nice value of the tracing thread, unless `--nice` sets another.
pub const DEFAULT_NICE: i32 = -10;

/// A changed nice value of the calling thread, which threads started meanwhile inherit. Restores the old value on drop.
#[derive(Debug)]
pub(crate) struct Priority {
    before: i32,
}

/// Why the nice value could not be lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the nice value {wanted} was refused ({errno}): grant CAP_SYS_NICE, or set Nice= in the systemd unit"
)]
pub(crate) struct PriorityError {
    wanted: i32,
    errno: Errno,
}

impl Priority {
    /// Sets the nice value of this thread. Without a `wanted` value, sets [`DEFAULT_NICE`] unless the thread already has
    /// a nice value other than 0, which somebody chose.
    ///
    /// Returns none if the thread keeps its value.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a lower value: without `CAP_SYS_NICE` and beyond `RLIMIT_NICE` (setpriority(2)).
    pub(crate) fn set(wanted: Option<i32>) -> Result<Option<Self>, PriorityError> {
        let before = process::getpriority_process(None).unwrap_or(0);
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
        // Only a return to a lower value could be refused, and it would leave the thread at the one that was asked for.
        let _ = process::setpriority_process(None, self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i32 {
        process::getpriority_process(None).unwrap()
    }

    #[test]
    fn threads_inherit_the_value_until_it_is_restored() {
        let before = nice();
        // A higher value needs no privilege.
        let priority = Priority::set(Some(before + 1)).unwrap().unwrap();
        assert_eq!(std::thread::spawn(nice).join().unwrap(), before + 1);
        assert!(Priority::set(None).unwrap().is_none() || before + 1 == 0, "a chosen value is kept");
        drop(priority);
        // Only a privileged thread may return to the lower value.
        assert!([before, before + 1].contains(&nice()));
    }
}
