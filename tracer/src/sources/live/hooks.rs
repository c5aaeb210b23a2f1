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

impl Hook {
    /// Every hook.
    pub const ALL: [Self; 8] = [
        Self::SynAckRetransmit,
        Self::FirstRead,
        Self::TimeWaitEnd,
        Self::Accept,
        Self::ResetSent,
        Self::ResetReceived,
        Self::Drop,
        Self::AcceptQueueFull,
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
        }
    }

    /// Returns the hook with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.name() == name)
    }

    /// Returns the name of the tracepoint or function.
    pub const fn target(self) -> &'static str {
        match self {
            Self::SynAckRetransmit => "tcp_retransmit_synack",
            Self::FirstRead => "tcp_rcv_space_adjust",
            Self::TimeWaitEnd => "inet_twsk_kill",
            Self::Accept => "inet_csk_accept",
            Self::ResetSent => "tcp_send_reset",
            Self::ResetReceived => "tcp_receive_reset",
            Self::Drop => "kfree_skb",
            Self::AcceptQueueFull => "tcp_conn_request",
        }
    }

    /// Returns the effect of a missing hook.
    pub const fn cost(self) -> &'static str {
        match self {
            Self::SynAckRetransmit => "abandoned server handshakes are not counted",
            Self::FirstRead => "an accepted connection keeps its listener's owner until it is closed",
            Self::TimeWaitEnd => "the end of TIME_WAIT is modelled (60 s), not observed",
            Self::Accept => "the wait for accept() has only an upper bound, the first read",
            Self::ResetSent => "resets have no reason, and SYNs that this host refuses are not counted",
            Self::ResetReceived => "the sender of a reset is not confirmed",
            Self::Drop => "segments of handshakes that this host drops are not found",
            Self::AcceptQueueFull => "SYNs that a full accept queue drops are not found",
        }
    }

    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::SynAckRetransmit => "syn_ack_retransmit",
            Self::FirstRead => "first_read",
            Self::TimeWaitEnd => "time_wait_end",
            Self::Accept => "accepted",
            Self::ResetSent => "reset_sent",
            Self::ResetReceived => "reset_received",
            Self::Drop => "segment_dropped",
            Self::AcceptQueueFull => "accept_queue_full",
        }
    }

    pub(super) const fn kind(self) -> HookKind {
        match self {
            Self::SynAckRetransmit | Self::FirstRead | Self::ResetSent | Self::ResetReceived | Self::Drop => {
                HookKind::Tracepoint
            }
            Self::TimeWaitEnd | Self::AcceptQueueFull => HookKind::Entry,
            Self::Accept => HookKind::Return,
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
