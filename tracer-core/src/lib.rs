//! The core of a TCP connection tracer: turns kernel events into connection records.
//!
//! A source delivers [events](event), mainly changes of `sk_state` from the kernel's
//! `sock:inet_sock_set_state` tracepoint. A [`Tracker`] assigns the events to connections and reports
//! [observations](lifecycle::Observation): state changes with durations, closed connections with a close
//! reason, and abandoned handshakes. The [analyses](analysis) aggregate observations over many connections.
//!
//! ```text
//! source ──Event──▶ Tracker ──Observation──▶ records, metrics, analyses
//! ```
//!
//! # Follow one connection
//!
//! ```
//! use std::net::SocketAddr;
//!
//! use tracer_core::{
//!     event::{
//!         Endpoint, Event, Nanos, SocketId,
//!         TcpState::{Closed, Established, FinWait1, FinWait2, SynSent},
//!         Timestamp, Transition,
//!     },
//!     lifecycle::{CloseReason, ClosedBy, DurationSource, Observation, Role, Tracker, TrackerOptions},
//! };
//!
//! const MS: u64 = 1_000_000;
//! let client = Endpoint::from(SocketAddr::from(([10, 0, 0, 1], 40_000)));
//! let server = Endpoint::from(SocketAddr::from(([10, 0, 0, 2], 443)));
//!
//! let mut tracker = Tracker::new(TrackerOptions::default());
//! let mut closed_connections = 0;
//! for (at_ms, from, to) in [
//!     (1_000, Closed, SynSent),
//!     (1_020, SynSent, Established),
//!     (1_500, Established, FinWait1),
//!     (1_520, FinWait1, FinWait2),
//!     (1_530, FinWait2, Closed),
//! ] {
//!     let transition = Transition::new(Timestamp(at_ms * MS), SocketId(1), from, to, client, server);
//!     tracker.observe(&Event::Transition(transition), &mut |observation| {
//!         let Observation::Closed(closed) = observation else { return };
//!         closed_connections += 1;
//!         assert_eq!(closed.connection.role, Role::Client);
//!         assert_eq!(closed.duration(), Some(Nanos::from_millis(530)));
//!
//!         let handshake = closed.connection.handshake.expect("the handshake was seen");
//!         assert_eq!(handshake.duration, Some(Nanos::from_millis(20)));
//!         assert_eq!(handshake.source, DurationSource::Observed);
//!
//!         assert_eq!(closed.close_cause.reason, CloseReason::Closed);
//!         assert_eq!(closed.close_cause.closed_by, Some(ClosedBy::Local));
//!     });
//! }
//! assert_eq!(closed_connections, 1);
//! assert_eq!(tracker.live(), 0);
//! ```
//!
//! # Aggregate handshakes
//!
//! ```
//! # use std::net::SocketAddr;
//! use tracer_core::{
//!     analysis::{GroupKey, HandshakeAttempt, Handshakes, HandshakesBy, HandshakesOptions},
//!     event::{Endpoint, Event, SocketId, TcpState, Timestamp, Transition},
//!     lifecycle::{Tracker, TrackerOptions},
//! };
//!
//! const MS: u64 = 1_000_000;
//! # let client = Endpoint::from(SocketAddr::from(([10, 0, 0, 1], 40_000)));
//! let fast = Endpoint::from(SocketAddr::from(([10, 0, 0, 2], 443)));
//! let slow = Endpoint::from(SocketAddr::from(([10, 0, 0, 3], 443)));
//!
//! let mut tracker = Tracker::new(TrackerOptions::default());
//! let mut handshakes =
//!     Handshakes::new(HandshakesOptions { by: HandshakesBy::Service, slowest: 5, max_groups: 100 });
//! for (socket, (server, handshake_ms)) in (1..).zip([(fast, 9), (fast, 10), (fast, 12), (slow, 80), (slow, 82)]) {
//!     let start = Timestamp(socket * 1_000 * MS);
//!     let end = Timestamp(start.0 + handshake_ms * MS);
//!     for (time, from, to) in
//!         [(start, TcpState::Closed, TcpState::SynSent), (end, TcpState::SynSent, TcpState::Established)]
//!     {
//!         let transition = Transition::new(time, SocketId(socket), from, to, client, server);
//!         tracker.observe(&Event::Transition(transition), &mut |observation| {
//!             if let Some(attempt) = HandshakeAttempt::ended_by(&observation) {
//!                 handshakes.add(&attempt, None);
//!             }
//!         });
//!     }
//! }
//!
//! let report = handshakes.report();
//! assert_eq!(report.total.established(), 5);
//! // The group that loses the most time comes first.
//! let services: Vec<_> = report.groups.iter().map(|group| (group.key, group.stats.count())).collect();
//! assert_eq!(services, [(&GroupKey::Service(slow), 2), (&GroupKey::Service(fast), 3)]);
//! // Quantiles are within 1 %.
//! let median = report.groups[1].stats.durations().quantile(0.5).expect("the group has durations");
//! assert!(median.as_micros().abs_diff(10_000) <= 100);
//! ```
//!
//! # Lifecycle of a connection
//!
//! - A client connection starts at CLOSE→SYN_SENT. A server connection starts at LISTEN→SYN_RECV, when the kernel
//!   creates the child socket. Each start reports [`Observation::Transition`] with a [`Connection`]; see
//!   [`Observation::started`].
//! - Each further transition extends the [`History`] of the connection. [`Role`], [`Handshake`] and [`Owner`] are
//!   completed as events show them.
//! - The transition to CLOSE reports [`Observation::Closed`] with a [`CloseCause`]: the [`CloseReason`] and the side
//!   that closed.
//! - After an orderly close the kernel may keep a timewait socket. [`AfterClose`] describes it, and
//!   [`Observation::TimewaitEnd`] reports its removal if the source observes it.
//!
//! Listeners are not connections. The tracker keeps them to determine the
//! [owner](owner::OwnerSource::Listener) of accepted connections. The kernel reuses socket addresses, so a
//! [`SocketId`] identifies a socket only at one time.
//!
//! A connection that existed before tracing began enters the table from a socket dump ([`Event::Existing`]) or at its
//! first transition. A later dump ([`Event::DumpScope`], [`Event::DumpEnd`]) closes connections that no longer exist.
//!
//! # Handshake durations
//!
//! A client's handshake is the time from SYN_SENT to ESTABLISHED, including retransmitted SYNs.
//!
//! A server's handshake is not visible in its transitions: the kernel creates the socket when the final ACK
//! arrives, and the socket spends only microseconds in SYN_RECV. Its duration is the kernel's round-trip
//! sample from SYN-ACK to ACK, which the source reads at ESTABLISHED ([`TcpInfo::srtt`]). With
//! [`SynAckRetransmit`] events the duration counts from the first SYN-ACK. A Fast Open child exists from the
//! SYN on, so its SYN_RECV is observed.
//!
//! A [`HandshakeCaveat`] marks a duration that is not exact. A handshake that the client never completes is
//! reported as [`Observation::Abandoned`] when its next SYN-ACK retransmission is overdue.
//!
//! # Observed, measured, modelled
//!
//! Every duration has a [`DurationSource`]:
//!
//! - *observed*: the time between two events.
//! - *measured*: a round-trip sample of the kernel.
//! - *modelled*: derived from the timers of the protocol, such as the 60 s of TIME_WAIT.
//!
//! # Unknown is absent
//!
//! An unknown value is `None`, never 0 and never a guess. Without [`TcpInfo`] a server's handshake has no
//! duration, and without [`SocketFlags`] most close reasons are [`CloseReason::Unknown`].
//!
//! # Gaps and incomplete connections
//!
//! Events can be lost. A connection whose start was not seen is
//! [`incomplete`](lifecycle::Connection::incomplete); a connection that missed a transition has a
//! [`gap`](lifecycle::Connection::gap). Only the durations next to the missing event are unknown.
//! [`TrackerCounts`] counts gaps, unmatched transitions and unseen closes. [`SourceCounts`] has the counters
//! of a source.
//!
//! # Bounds
//!
//! All memory is bounded:
//!
//! | table | limit | over the limit |
//! |---|---|---|
//! | connections | [`TrackerOptions::max_connections`] | evicted, [`TrackerCounts::evicted`] |
//! | half-open handshakes | 65,536 | [`TrackerCounts::unfollowed`] |
//! | timewait sockets | 262,144 | [`TrackerCounts::unfollowed`] |
//! | listeners | 65,536; from socket dumps 1,024 for each address | accepted connections have no owner, [`TrackerCounts::unfollowed`] |
//! | listeners with abandoned handshakes | 1,024 | [`AbandonedHandshakes::overflow`] |
//! | addresses of [`ListenerActivity`] | 10,000 | [`ListenerActivity::uncounted`] |
//! | handshake groups | [`HandshakesOptions::max_groups`] | [`GroupKey::Other`] |
//!
//! # Purity
//!
//! The crate performs no I/O, reads no clock, starts no threads, calls no libc and contains no `unsafe` code.
//! Time comes from the events, so a replay of the same events gives the same observations in the same order.
//! Its dependencies are `arrayvec`, `foldhash`, `hashbrown`, `sketches-ddsketch` and `slab`.
//!
//! [`AbandonedHandshakes::overflow`]: lifecycle::AbandonedHandshakes::overflow
//! [`AfterClose`]: lifecycle::AfterClose
//! [`CloseCause`]: lifecycle::CloseCause
//! [`CloseReason`]: lifecycle::CloseReason
//! [`CloseReason::Unknown`]: lifecycle::CloseReason::Unknown
//! [`Connection`]: lifecycle::Connection
//! [`DurationSource`]: lifecycle::DurationSource
//! [`Event::DumpEnd`]: event::Event::DumpEnd
//! [`Event::DumpScope`]: event::Event::DumpScope
//! [`Event::Existing`]: event::Event::Existing
//! [`GroupKey::Other`]: analysis::GroupKey::Other
//! [`Handshake`]: lifecycle::Handshake
//! [`HandshakeCaveat`]: lifecycle::HandshakeCaveat
//! [`HandshakesOptions::max_groups`]: analysis::HandshakesOptions::max_groups
//! [`History`]: lifecycle::History
//! [`ListenerActivity`]: analysis::ListenerActivity
//! [`ListenerActivity::uncounted`]: analysis::ListenerActivity::uncounted
//! [`Observation::Abandoned`]: lifecycle::Observation::Abandoned
//! [`Observation::Closed`]: lifecycle::Observation::Closed
//! [`Observation::started`]: lifecycle::Observation::started
//! [`Observation::TimewaitEnd`]: lifecycle::Observation::TimewaitEnd
//! [`Observation::Transition`]: lifecycle::Observation::Transition
//! [`Owner`]: owner::Owner
//! [`Role`]: lifecycle::Role
//! [`SocketFlags`]: event::SocketFlags
//! [`SocketId`]: event::SocketId
//! [`SourceCounts`]: event::SourceCounts
//! [`SynAckRetransmit`]: event::SynAckRetransmit
//! [`TcpInfo`]: event::TcpInfo
//! [`TcpInfo::srtt`]: event::TcpInfo::srtt
//! [`Tracker`]: lifecycle::Tracker
//! [`TrackerCounts`]: lifecycle::TrackerCounts
//! [`TrackerCounts::evicted`]: lifecycle::TrackerCounts::evicted
//! [`TrackerCounts::unfollowed`]: lifecycle::TrackerCounts::unfollowed
//! [`TrackerOptions::max_connections`]: lifecycle::TrackerOptions::max_connections
#![forbid(unsafe_code)]

pub mod analysis;
pub mod counted;
pub mod escape;
pub mod event;
pub mod lifecycle;
pub mod owner;
