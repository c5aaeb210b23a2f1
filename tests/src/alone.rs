//! Grants turns on the host: most tests share it; tests that account for every event run exclusively.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Users {
    sharing: usize,
    alone: bool,
    waiting_to_be_alone: usize,
}

static USERS: Mutex<Users> = Mutex::new(Users { sharing: 0, alone: false, waiting_to_be_alone: 0 });
static CHANGED: Condvar = Condvar::new();

/// Permission to generate traffic, released on drop. It may move between threads.
#[derive(Debug)]
pub(crate) struct Turn {
    alone: bool,
}

fn users() -> MutexGuard<'static, Users> {
    USERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Turn {
    /// Waits until no test of this process runs, or waits to run, exclusively.
    pub(crate) fn shared() -> Self {
        let busy = |users: &mut Users| users.alone || users.waiting_to_be_alone != 0;
        let mut users = CHANGED.wait_while(users(), busy).unwrap_or_else(PoisonError::into_inner);
        users.sharing += 1;
        Self { alone: false }
    }

    /// Waits until no other test of this process generates traffic.
    pub(crate) fn alone() -> Self {
        let mut users = users();
        users.waiting_to_be_alone += 1;
        let busy = |users: &mut Users| users.alone || users.sharing != 0;
        let mut users = CHANGED.wait_while(users, busy).unwrap_or_else(PoisonError::into_inner);
        users.waiting_to_be_alone -= 1;
        users.alone = true;
        Self { alone: true }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut users = users();
        if self.alone {
            users.alone = false;
        } else {
            users.sharing -= 1;
        }
        CHANGED.notify_all();
    }
}
