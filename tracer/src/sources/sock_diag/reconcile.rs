//! Merges a socket dump with the events around it, without gaps and duplicates.
//!
//! Tracing starts before the dump, and the events since then are read after it. For a socket with events, the events
//! take precedence over the dump: its state before the first event is the `from` state of that event. A connection that
//! starts with its first event is dropped from the dump.

use std::collections::HashMap;

use tracer_core::event::{
    ConnKey, Endpoint, Event, ExistingSocket, ExistingTimewait, Netns, SocketId, TcpState,
};

/// The first event of a connection since tracing started.
#[derive(Clone, Copy)]
enum FirstEvent {
    /// It starts the connection.
    Starts,
    /// It leaves this state.
    Leaves(TcpState),
}

/// Returns the full sockets and the timewait sockets that the events do not cover, each full socket in the state before
/// its first event.
pub(crate) fn reconcile(
    sockets: Vec<ExistingSocket>,
    timewait: Vec<ExistingTimewait>,
    events: &[Event],
) -> (Vec<ExistingSocket>, Vec<ExistingTimewait>) {
    let mut first: HashMap<ConnKey, FirstEvent> = HashMap::new();
    // Connections that have started without a known local port, by socket.
    let mut unbound: HashMap<SocketId, ConnKey> = HashMap::new();
    // The processes that started to listen on an endpoint. `SO_REUSEPORT` allows several.
    let mut listening: HashMap<ConnKey, Vec<Option<u32>>> = HashMap::new();
    for event in events {
        let Event::Transition(transition) = event else { continue };
        let key = transition.key();
        if transition.to == TcpState::Listen {
            listening.entry(key).or_default().push(transition.process.map(|process| process.pid));
            continue;
        }
        let starts = matches!(
            (transition.from, transition.to),
            (TcpState::Closed, TcpState::SynSent) | (TcpState::Listen, TcpState::SynReceived)
        );
        if starts && transition.local.port == 0 {
            unbound.insert(transition.socket, key);
            continue;
        }
        // Up to 6.14, an accepted connection has its endpoints only when it is established.
        let starts = starts
            || unbound.remove(&transition.socket).is_some()
            || (transition.from, transition.to) == (TcpState::SynReceived, TcpState::Established);
        first.entry(key).or_insert(if starts {
            FirstEvent::Starts
        } else {
            FirstEvent::Leaves(transition.from)
        });
    }
    // A connection without a known local port accounts for one socket in SYN_SENT to the same remote endpoint.
    let mut without_port: HashMap<(Option<Netns>, Endpoint), usize> = HashMap::new();
    for ConnKey { netns, remote, .. } in unbound.into_values() {
        *without_port.entry((netns, remote)).or_default() += 1;
    }
    let timewait = timewait.into_iter().filter(|socket| !first.contains_key(&socket.key())).collect();
    let sockets = sockets
        .into_iter()
        .filter_map(|mut socket| {
            if socket.state == TcpState::Listen {
                let started = listening.get_mut(&socket.key());
                let same_process =
                    |pid: &Option<u32>| socket.process.is_none_or(|process| *pid == Some(process.pid));
                if let Some(started) = started
                    && let Some(index) = started.iter().position(same_process)
                {
                    started.swap_remove(index);
                    return None;
                }
                // Other events with this key are not the listener's: up to 6.14, an accepted connection starts with the
                // endpoints of its listener.
                return Some(socket);
            }
            match first.get(&socket.key()) {
                Some(FirstEvent::Starts) => return None,
                Some(FirstEvent::Leaves(state)) if socket.state != *state => {
                    socket.state = *state;
                    socket.state_age = None;
                }
                None if socket.state == TcpState::SynSent => {
                    if let Some(count) = without_port.get_mut(&(socket.netns, socket.remote))
                        && *count > 0
                    {
                        *count -= 1;
                        return None;
                    }
                }
                Some(FirstEvent::Leaves(_)) | None => {}
            }
            Some(socket)
        })
        .collect();
    (sockets, timewait)
}

#[cfg(test)]
mod tests {
    use tracer_core::event::{Nanos, Process, SocketCookie, Timestamp, Transition};

    use super::*;

    /// Returns the full sockets that remain.
    fn reconciled(sockets: Vec<ExistingSocket>, events: &[Event]) -> Vec<ExistingSocket> {
        reconcile(sockets, Vec::new(), events).0
    }

    fn endpoint(text: &str) -> Endpoint {
        let address: std::net::SocketAddr = text.parse().unwrap();
        Endpoint { address: address.ip(), port: address.port() }
    }

    fn existing(state: TcpState, local: &str, remote: &str) -> ExistingSocket {
        ExistingSocket {
            time: Timestamp(100),
            cookie: SocketCookie(1),
            state,
            state_age: Some(Nanos(5)),
            local: endpoint(local),
            remote: endpoint(remote),
            process: None,
            netns: Some(Netns(1)),
            cgroup_id: None,
            info: None,
            interface: None,
        }
    }

    fn event(socket: u64, from: TcpState, to: TcpState, local: &str, remote: &str) -> Event {
        Event::Transition(Transition {
            time: Timestamp(90),
            socket: SocketId(socket),
            cookie: None,
            from,
            to,
            local: endpoint(local),
            remote: endpoint(remote),
            process: None,
            thread: None,
            netns: Some(Netns(1)),
            cgroup_id: None,
            accept_queue: None,
            data_segments: None,
            unaccepted_segments: None,
            interface: None,
            transparent: false,
            defer_accept: false,
            flags: None,
            info: None,
            sequences: None,
        })
    }

    const A: &str = "10.0.0.1:1000";
    const B: &str = "10.0.0.2:80";

    #[test]
    fn a_socket_without_events_is_unchanged() {
        let sockets = vec![existing(TcpState::CloseWait, A, B)];
        assert_eq!(reconciled(sockets.clone(), &[]), sockets);
    }

    #[test]
    fn a_socket_with_events_has_the_state_before_the_first() {
        let events = [
            event(7, TcpState::Established, TcpState::CloseWait, A, B),
            event(7, TcpState::CloseWait, TcpState::LastAck, A, B),
        ];
        let kept = reconciled(vec![existing(TcpState::LastAck, A, B)], &events);
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].state, kept[0].state_age), (TcpState::Established, None));
    }

    #[test]
    fn a_connection_that_started_meanwhile_is_dropped() {
        let opened = [
            event(7, TcpState::Closed, TcpState::SynSent, "10.0.0.1:0", B),
            event(7, TcpState::SynSent, TcpState::Established, A, B),
        ];
        assert!(reconciled(vec![existing(TcpState::Established, A, B)], &opened).is_empty());
        let accepted = [event(8, TcpState::SynReceived, TcpState::Established, B, A)];
        assert!(reconciled(vec![existing(TcpState::Established, B, A)], &accepted).is_empty());
    }

    #[test]
    fn a_connection_without_a_port_accounts_for_one_socket_to_the_same_peer() {
        let events = [event(7, TcpState::Closed, TcpState::SynSent, "10.0.0.1:0", B)];
        let sockets =
            vec![existing(TcpState::SynSent, A, B), existing(TcpState::SynSent, "10.0.0.1:1001", B)];
        assert_eq!(reconciled(sockets, &events).len(), 1);
    }

    #[test]
    fn a_new_listener_hides_no_other_listener_on_its_port() {
        let process = |pid| Some(Process { pid, uid: 0, comm: [0; 16] });
        let mut listens = event(7, TcpState::Closed, TcpState::Listen, B, "0.0.0.0:0");
        let Event::Transition(transition) = &mut listens else { unreachable!() };
        transition.process = process(2);
        let listener =
            |pid| ExistingSocket { process: process(pid), ..existing(TcpState::Listen, B, "0.0.0.0:0") };
        let kept = reconciled(vec![listener(1), listener(2)], &[listens]);
        assert_eq!(kept, [listener(1)]);
        let unowned = existing(TcpState::Listen, B, "0.0.0.0:0");
        assert_eq!(reconciled(vec![unowned], &[listens]), []);
    }

    #[test]
    fn an_accepted_connection_does_not_hide_its_listener() {
        let events = [
            event(7, TcpState::Listen, TcpState::SynReceived, B, "0.0.0.0:0"),
            event(7, TcpState::SynReceived, TcpState::Established, B, A),
        ];
        let listener = existing(TcpState::Listen, B, "0.0.0.0:0");
        assert_eq!(reconciled(vec![listener, existing(TcpState::Established, B, A)], &events), [listener]);
    }

    #[test]
    fn a_socket_in_another_namespace_is_unchanged() {
        let events = [event(7, TcpState::Closed, TcpState::Listen, B, "0.0.0.0:0")];
        let mut elsewhere = existing(TcpState::Listen, B, "0.0.0.0:0");
        elsewhere.netns = Some(Netns(2));
        assert_eq!(reconciled(vec![elsewhere], &events).len(), 1);
    }

    #[test]
    fn a_timewait_socket_with_events_is_dropped() {
        let timewait = ExistingTimewait {
            time: Timestamp(100),
            state: TcpState::TimeWait,
            timer_due: Timestamp(200),
            local: endpoint(A),
            remote: endpoint(B),
            netns: Some(Netns(1)),
        };
        let closes = [event(7, TcpState::FinWait2, TcpState::Closed, A, B)];
        assert_eq!(reconcile(Vec::new(), vec![timewait], &closes).1, []);
        let elsewhere = [event(7, TcpState::FinWait2, TcpState::Closed, "10.0.0.1:1001", B)];
        assert_eq!(reconcile(Vec::new(), vec![timewait], &elsewhere).1, [timewait]);
    }
}
