//! The socket dump at the start, while the programs already record.

use std::{
    io, panic,
    sync::mpsc::{self, TryRecvError},
    thread,
};

use tracer_core::event::Event;

use crate::{
    host,
    sources::{
        live::stream::Stream,
        sock_diag::{Existing, existing},
    },
};

/// Events held before the existing sockets are delivered, about 80 MB, beyond which reading stops. One pass may exceed it
/// by what the buffer holds. Later records stay in the buffer, which counts what it loses.
pub(super) const MAX_EARLY: usize = 1 << 18;

/// Dumps the existing sockets on a separate thread, and reads the events meanwhile, so that a long dump does not fill the
/// buffer. Returns the dump and the events.
///
/// # Errors
///
/// When the stream cannot wait for records.
pub(super) fn dump_and_read(stream: &mut Stream) -> io::Result<(Existing, Vec<Event>)> {
    let stop = stream.stop_handle()?;
    let mut early = Vec::new();
    let existing = while_reading(
        thread::Builder::new(),
        existing,
        move || stop.wake(),
        || {
            if early.len() >= MAX_EARLY {
                return Ok(false);
            }
            stream.wait()?;
            stream.read(host::now(), &mut |event| early.push(*event));
            Ok(true)
        },
    )?;
    Ok((existing, early))
}

/// Runs `task` on a thread, and `read` again and again until the task has ended or `read` returns false. Then waits for the
/// task and returns its result. `wake` ends the wait of `read` when the task has ended.
///
/// Without a thread, the task runs here and nothing is read.
fn while_reading<T: Send + 'static>(
    thread: thread::Builder,
    task: impl FnOnce() -> T + Clone + Send + 'static,
    wake: impl FnOnce() + Send + 'static,
    mut read: impl FnMut() -> io::Result<bool>,
) -> io::Result<T> {
    let (sender, receiver) = mpsc::channel();
    let on_thread = task.clone();
    let thread = thread.name("dump".to_owned()).spawn(move || {
        host::give_up_priority();
        // The receiver is gone only after an error, which ends the program.
        let _ = sender.send(on_thread());
        wake();
    });
    let Ok(thread) = thread else { return Ok(task()) };
    let mut result = None;
    while result.is_none() && read()? {
        match receiver.try_recv() {
            Ok(sent) => result = Some(sent),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => break,
        }
    }
    let result = result.or_else(|| receiver.recv().ok());
    // The thread has this thread's capabilities, so none may be left when they are given up.
    let ended = thread.join();
    result.map_or_else(|| panic::resume_unwind(ended.expect_err("a thread that sends nothing panics")), Ok)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    #[test]
    fn events_are_read_during_the_dump() {
        let (third_read, woken) = (Arc::new(Barrier::new(2)), Arc::new(AtomicBool::new(false)));
        let dump = {
            let third_read = Arc::clone(&third_read);
            move || {
                third_read.wait();
                7
            }
        };
        let wake = {
            let woken = Arc::clone(&woken);
            move || woken.store(true, Ordering::Release)
        };
        let mut reads = 0;
        let found = while_reading(thread::Builder::new(), dump, wake, || {
            reads += 1;
            if reads == 3 {
                third_read.wait();
            }
            // Like a wait without records.
            while reads > 3 && !woken.load(Ordering::Acquire) {
                thread::yield_now();
            }
            Ok(true)
        });
        assert_eq!(found.unwrap(), 7);
        assert!(reads >= 3, "{reads}");
    }

    #[test]
    fn reading_stops_at_its_limit_and_the_dump_is_still_returned() {
        let stopped = Arc::new(Barrier::new(2));
        let dump = {
            let stopped = Arc::clone(&stopped);
            move || {
                stopped.wait();
                7
            }
        };
        let mut reads = 0;
        let found = while_reading(
            thread::Builder::new(),
            dump,
            || {},
            || {
                reads += 1;
                if reads == 5 {
                    stopped.wait();
                }
                Ok(reads < 5)
            },
        );
        assert_eq!((found.unwrap(), reads), (7, 5));
    }

    #[test]
    fn without_a_thread_the_dump_comes_first() {
        // The stack is larger than the address space.
        let refused = thread::Builder::new().stack_size(1 << 60);
        let found = while_reading(refused, || 7, || {}, || panic!("nothing is read"));
        assert_eq!(found.unwrap(), 7);
    }
}
