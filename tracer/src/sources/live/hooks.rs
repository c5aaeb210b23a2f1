//! The optional hooks. Tracing works without them, with less information.

use crate::sources::live::load::LoadError;

/// An optional hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Hook {
    /// `tcp:tcp_retransmit_synack`
    SynAckRetransmit,
    /// `tcp:tcp_rcv_space_adjust`
    FirstRead,
    /// `inet_twsk_kill`
    TimeWaitEnd,
    /// `inet_csk_accept`
    Accept,
    /// `tcp:tcp_send_reset`
    ResetSent,
    /// `tcp:tcp_receive_reset`
    ResetReceived,
    /// `skb:kfree_skb`
    Drop,
    /// `tcp_conn_request`
    AcceptQueueFull,
    /// `sock:sock_send_length`, or the return of `tcp_sendmsg`
    FirstWrite,
}

/// How a program attaches to its hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HookKind {
    /// A tracepoint through BTF (`tp_btf`).
    Tracepoint,
    /// The entry of a function (`fentry`).
    Entry,
    /// The return of a function (`fexit`).
    Return,
}

/// A place in the kernel to which the program of a hook attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) program: &'static str,
    pub(super) kind: HookKind,
    /// The name of the tracepoint or function.
    pub(super) target: &'static str,
}

impl Place {
    const fn tracepoint(program: &'static str, target: &'static str) -> Self {
        Self { program, kind: HookKind::Tracepoint, target }
    }

    const fn entry(program: &'static str, target: &'static str) -> Self {
        Self { program, kind: HookKind::Entry, target }
    }

    const fn returned(program: &'static str, target: &'static str) -> Self {
        Self { program, kind: HookKind::Return, target }
    }
}

impl Hook {
    /// Every hook.
    pub const ALL: [Self; 9] = [
        Self::SynAckRetransmit,
        Self::FirstRead,
        Self::TimeWaitEnd,
        Self::Accept,
        Self::ResetSent,
        Self::ResetReceived,
        Self::Drop,
        Self::AcceptQueueFull,
        Self::FirstWrite,
    ];

    /// Returns the name on the command line and in `doctor`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynAckRetransmit => "syn_ack",
            Self::FirstRead => "first_read",
            Self::TimeWaitEnd => "fentry",
            Self::Accept => "accept",
            Self::ResetSent => "reset_sent",
            Self::ResetReceived => "reset_received",
            Self::Drop => "drop",
            Self::AcceptQueueFull => "accept_queue_full",
            Self::FirstWrite => "first_write",
        }
    }

    /// Returns the hook with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.name() == name)
    }

    /// Returns the effect of a missing hook.
    pub const fn cost(self) -> &'static str {
        match self {
            Self::SynAckRetransmit => "abandoned server handshakes are not counted",
            Self::FirstRead => {
                "the time of the first read is unknown, and an accepted connection keeps its listener's or acceptor's owner until it is closed"
            }
            Self::TimeWaitEnd => "the end of TIME_WAIT is modelled (60 s), not observed",
            Self::Accept => "the wait for accept() has only an upper bound, the first read",
            Self::ResetSent => "resets have no reason, and SYNs that this host refuses are not counted",
            Self::ResetReceived => "the sender of a reset is not confirmed",
            Self::Drop => "segments of handshakes that this host drops are not found",
            Self::AcceptQueueFull => "SYNs that a full accept queue drops are not found",
            Self::FirstWrite => "the time of the first write is unknown",
        }
    }

    /// Returns the names of the tracepoints or functions of which one is enough, in the order in which they are tried.
    pub fn targets(self) -> impl Iterator<Item = &'static str> {
        self.places().iter().map(|place| place.target)
    }

    /// Returns the places to try, the cheapest first. One is enough.
    pub(super) const fn places(self) -> &'static [Place] {
        match self {
            Self::SynAckRetransmit => {
                const { &[Place::tracepoint("syn_ack_retransmit", "tcp_retransmit_synack")] }
            }
            Self::FirstRead => const { &[Place::tracepoint("first_read", "tcp_rcv_space_adjust")] },
            Self::TimeWaitEnd => const { &[Place::entry("time_wait_end", "inet_twsk_kill")] },
            Self::Accept => const { &[Place::returned("accepted", "inet_csk_accept")] },
            Self::ResetSent => const { &[Place::tracepoint("reset_sent", "tcp_send_reset")] },
            Self::ResetReceived => const { &[Place::tracepoint("reset_received", "tcp_receive_reset")] },
            Self::Drop => const { &[Place::tracepoint("segment_dropped", "kfree_skb")] },
            Self::AcceptQueueFull => const { &[Place::entry("accept_queue_full", "tcp_conn_request")] },
            Self::FirstWrite => {
                const {
                    &[
                        Place::tracepoint("first_write", "sock_send_length"),
                        Place::returned("first_write_return", "tcp_sendmsg"),
                    ]
                }
            }
        }
    }
}

/// A set of hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hooks(u16);

impl Hooks {
    /// Every hook.
    pub const ALL: Self = Self((1 << Hook::ALL.len()) - 1);
    /// No hook.
    pub const NONE: Self = Self(0);

    /// Returns the set without `hook`.
    #[must_use]
    pub const fn without(self, hook: Hook) -> Self {
        Self(self.0 & !(1 << hook as u16))
    }

    /// Returns whether the set contains `hook`.
    pub const fn contains(self, hook: Hook) -> bool {
        self.0 & (1 << hook as u16) != 0
    }
}

/// An optional hook that could not be attached.
#[derive(Debug)]
pub struct RefusedHook {
    /// The hook.
    pub hook: Hook,
    /// The cause.
    pub error: LoadError,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hook_has_its_name_and_its_place_in_a_set() {
        for hook in Hook::ALL {
            assert_eq!(Hook::parse(hook.name()), Some(hook));
            let others = Hooks::ALL.without(hook);
            assert!(!others.contains(hook) && Hooks::ALL.contains(hook) && !Hooks::NONE.contains(hook));
            assert_eq!(Hook::ALL.iter().filter(|hook| others.contains(**hook)).count(), Hook::ALL.len() - 1);
        }
        assert_eq!(Hook::parse("Accept"), None);
    }
}
