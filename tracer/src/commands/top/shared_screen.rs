//! The state that the tracing thread and the drawing thread share.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::top::{Screen, Settings};

/// The screen of the tracing thread, the settings of the drawing thread, and flags.
#[derive(Default)]
pub(super) struct SharedScreen {
    current: Mutex<Current>,
    /// The user has quit, or the run has ended.
    pub(super) ended: AtomicBool,
    /// The program should stop until it gets SIGCONT.
    pub(super) suspend: AtomicBool,
}

/// What the drawing thread shows.
#[derive(Clone, Default)]
pub(super) struct Current {
    /// Written by the tracing thread.
    pub(super) screen: Arc<Screen>,
    /// Written by the drawing thread.
    pub(super) settings: Settings,
}

impl SharedScreen {
    pub(super) fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets [`SharedScreen::ended`] on drop, so that the tracing thread also ends when the drawing thread panics.
pub(super) struct EndOnDrop(pub(super) Arc<SharedScreen>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_panic_of_the_drawing_thread_ends_the_run() {
        let shared = Arc::new(SharedScreen::default());
        let end = EndOnDrop(Arc::clone(&shared));
        let thread = thread::spawn(move || {
            let _end = end;
            panic!("as drawing may");
        });
        assert!(thread.join().is_err());
        assert!(shared.ended.load(Ordering::Relaxed));
    }
}
