//! Fits a snapshot and the events around it together, without a gap and without counting twice.
//!
//! Tracing starts first, then the sockets are listed, then the events that came meanwhile are read. A
//! socket with events is described by them: the state its first event leaves is the state it was in
//! before, whatever the list says. One whose first event begins a life needs no past.

use std::collections::HashMap;

use crate::{
    event::{Endpoint, Event, ExistingSocket},
    lifecycle::TcpState,
};

type Key = (Option<u32>, Endpoint, Endpoint);

/// What the events since tracing began say of one endpoint pair.
#[derive(Clone, Copy)]
enum FirstEvent {
    /// It begins a life.
    Begins,
    /// It leaves this state.
    Leaves(TcpState),
}

/// Keeps of `sockets` what the events do not tell by themselves, in the state before the first event.
pub fn reconcile(sockets: Vec<ExistingSocket>, events: &[Event]) -> Vec<ExistingSocket> {
    let mut first: HashMap<Key, FirstEvent> = HashMap::new();
    // Connections that have begun, and whose local port no event has told yet, by socket.
    let mut unbound: HashMap<u64, Key> = HashMap::new();
    // Several processes may listen on one port (`SO_REUSEPORT`): who began there.
    let mut listening: HashMap<Key, Vec<Option<u32>>> = HashMap::new();
    for event in events {
        let Event::Transition(transition) = event else { continue };
        let key = (transition.netns, transition.local, transition.remote);
        if transition.to == TcpState::Listen {
            listening.entry(key).or_default().push(transition.process.map(|process| process.pid));
            continue;
        }
        let begins = matches!(
            (transition.from, transition.to),
            (TcpState::Closed, TcpState::SynSent) | (TcpState::Listen, TcpState::SynReceived)
        );
        if begins && transition.local.port == 0 {
            unbound.insert(transition.socket.0, key);
            continue;
        }
        // A listener's child, up to 6.14, tells its endpoints only when it is established.
        let begins = begins
            || unbound.remove(&transition.socket.0).is_some()
            || (transition.from, transition.to) == (TcpState::SynReceived, TcpState::Established);
        first.entry(key).or_insert(if begins {
            FirstEvent::Begins
        } else {
            FirstEvent::Leaves(transition.from)
        });
    }
    // What has begun and is still without a port matches by its remote end, as often as it occurs.
    let mut opening: HashMap<(Option<u32>, Endpoint), usize> = HashMap::new();
    for (netns, _, remote) in unbound.into_values() {
        *opening.entry((netns, remote)).or_default() += 1;
    }
    sockets
        .into_iter()
        .filter_map(|mut socket| {
            if socket.state == TcpState::Listen {
                let begun = listening.get_mut(&(socket.netns, socket.local, socket.remote));
                let began =
                    |pid: &Option<u32>| socket.process.is_none_or(|process| *pid == Some(process.pid));
                if let Some(begun) = begun
                    && let Some(index) = begun.iter().position(began)
                {
                    begun.swap_remove(index);
                    return None;
                }
                // No other event is about it: a child, up to 6.14, begins with its listener's ends.
                return Some(socket);
            }
            match first.get(&(socket.netns, socket.local, socket.remote)) {
                Some(FirstEvent::Begins) => return None,
                Some(FirstEvent::Leaves(state)) if socket.state != *state => {
                    socket.state = *state;
                    socket.state_age_ns = None;
                }
                None if socket.state == TcpState::SynSent => {
                    if let Some(count) = opening.get_mut(&(socket.netns, socket.remote))
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
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Process, SocketId, Timestamp, Transition};

    fn endpoint(text: &str) -> Endpoint {
        let address: std::net::SocketAddr = text.parse().unwrap();
        Endpoint { address: address.ip(), port: address.port() }
    }

    fn existing(state: TcpState, local: &str, remote: &str) -> ExistingSocket {
        ExistingSocket {
            time: Timestamp(100),
            cookie: 1,
            state,
            state_age_ns: Some(5),
            local: endpoint(local),
            remote: endpoint(remote),
            process: None,
            netns: Some(1),
            cgroup_id: None,
            info: None,
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
            netns: Some(1),
            cgroup_id: None,
            accept_queue: None,
            data_segments: None,
            interface: None,
            transparent: false,
            defer_accept: false,
            unaccepted_segments: None,
            flags: None,
            info: None,
        })
    }

    const A: &str = "10.0.0.1:1000";
    const B: &str = "10.0.0.2:80";

    #[test]
    fn a_socket_without_events_is_as_listed() {
        let sockets = vec![existing(TcpState::CloseWait, A, B)];
        assert_eq!(reconcile(sockets.clone(), &[]), sockets);
    }

    #[test]
    fn a_socket_with_events_is_as_before_the_first() {
        let events = [
            event(7, TcpState::Established, TcpState::CloseWait, A, B),
            event(7, TcpState::CloseWait, TcpState::LastAck, A, B),
        ];
        let kept = reconcile(vec![existing(TcpState::LastAck, A, B)], &events);
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].state, kept[0].state_age_ns), (TcpState::Established, None));
    }

    #[test]
    fn a_socket_whose_life_began_meanwhile_needs_no_past() {
        let opened = [
            event(7, TcpState::Closed, TcpState::SynSent, "10.0.0.1:0", B),
            event(7, TcpState::SynSent, TcpState::Established, A, B),
        ];
        assert!(reconcile(vec![existing(TcpState::Established, A, B)], &opened).is_empty());
        let accepted = [event(8, TcpState::SynReceived, TcpState::Established, B, A)];
        assert!(reconcile(vec![existing(TcpState::Established, B, A)], &accepted).is_empty());
    }

    #[test]
    fn an_opening_without_a_port_accounts_for_one_socket_to_the_same_peer() {
        let events = [event(7, TcpState::Closed, TcpState::SynSent, "10.0.0.1:0", B)];
        let sockets =
            vec![existing(TcpState::SynSent, A, B), existing(TcpState::SynSent, "10.0.0.1:1001", B)];
        assert_eq!(reconcile(sockets, &events).len(), 1);
    }

    #[test]
    fn a_listener_that_begins_hides_no_other_on_its_port() {
        let process = |pid| Some(Process { pid, uid: 0, comm: [0; 16] });
        let mut begins = event(7, TcpState::Closed, TcpState::Listen, B, "0.0.0.0:0");
        let Event::Transition(transition) = &mut begins else { unreachable!() };
        transition.process = process(2);
        let listener =
            |pid| ExistingSocket { process: process(pid), ..existing(TcpState::Listen, B, "0.0.0.0:0") };
        let kept = reconcile(vec![listener(1), listener(2)], &[begins]);
        assert_eq!(kept, [listener(1)]);
        let nobodys = existing(TcpState::Listen, B, "0.0.0.0:0");
        assert_eq!(reconcile(vec![nobodys], &[begins]), []);
    }

    #[test]
    fn a_child_that_begins_with_its_listener_s_ends_leaves_the_listener() {
        let events = [
            event(7, TcpState::Listen, TcpState::SynReceived, B, "0.0.0.0:0"),
            event(7, TcpState::SynReceived, TcpState::Established, B, A),
        ];
        let listener = existing(TcpState::Listen, B, "0.0.0.0:0");
        assert_eq!(reconcile(vec![listener, existing(TcpState::Established, B, A)], &events), [listener]);
    }

    #[test]
    fn another_namespace_is_another_socket() {
        let events = [event(7, TcpState::Closed, TcpState::Listen, B, "0.0.0.0:0")];
        let mut elsewhere = existing(TcpState::Listen, B, "0.0.0.0:0");
        elsewhere.netns = Some(2);
        assert_eq!(reconcile(vec![elsewhere], &events).len(), 1);
    }
}
