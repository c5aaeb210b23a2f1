//! Transitions of sockets: the event `sock:inet_sock_set_state`.

use std::{collections::HashSet, io};

use crate::{
    instance::{Instance, unexpected},
    process::{current, first_process},
};

const EVENT: &str = "events/sock/inet_sock_set_state";
const NAME: &str = "inet_sock_set_state";

/// Records transitions from its start to its end; removes its tracefs instance on drop.
#[derive(Debug)]
pub struct Witness {
    instance: Instance,
    port: u16,
    /// Threads of process 1 when recording started.
    first_process: HashSet<u32>,
}

/// Transitions that a witness recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witnessed {
    /// Transitions of sockets with the witness's port.
    pub own: u64,
    /// Transitions of `own` during which a thread of process 1 was current. Some virtual machines' kernels run no BPF
    /// program then, and count no skip.
    pub under_first_process: u64,
    /// Transitions of all other TCP sockets of the host.
    pub strangers: u64,
}

impl Witnessed {
    /// Returns whether `own` is the number of the port's transitions, with or without those that the kernel may hide from
    /// BPF programs.
    pub fn is_exactly(&self, own: u64) -> bool {
        own == self.own || own == self.own - self.under_first_process
    }

    /// Returns the minimum number of the port's transitions that a BPF program sees.
    pub fn least(&self) -> u64 {
        self.own - self.under_first_process
    }
}

impl Witness {
    /// Starts recording. `most` is the maximum number of transitions.
    ///
    /// # Errors
    ///
    /// Fails if tracefs cannot be mounted or lacks the event.
    pub fn start(port: u16, most: u64) -> io::Result<Self> {
        let first_process = first_process();
        Ok(Self { instance: Instance::start(EVENT, most)?, port, first_process })
    }

    /// Stops recording and counts the transitions.
    ///
    /// # Errors
    ///
    /// Fails if the trace buffer was too small, or its text cannot be read or parsed.
    pub fn end(self) -> io::Result<Witnessed> {
        let mut first_process = first_process();
        first_process.extend(&self.first_process);
        let mut witnessed = Witnessed { own: 0, under_first_process: 0, strangers: 0 };
        let port = format!("port={} ", self.port);
        self.instance.read(|event| {
            if event.contains(" inet_sock_set_state: ") && event.contains("protocol=IPPROTO_TCP ") {
                if event.contains(&port) {
                    let pid = current(event, NAME).ok_or_else(|| unexpected("no process in", event))?;
                    witnessed.own += 1;
                    witnessed.under_first_process += u64::from(first_process.contains(&pid));
                } else {
                    witnessed.strangers += 1;
                }
            }
            Ok(())
        })?;
        Ok(witnessed)
    }
}
