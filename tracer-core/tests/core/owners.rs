//! The owner of a connection and its source.

use tracer_core::{
    event::{
        Endpoint, Event, Netns, Process,
        TcpState::{Closed, Established, FinWait1, FinWait2, LastAck, SynReceived, SynSent},
    },
    owner::OwnerSource,
};
use tracer_core_testing::script::{ScriptedSocket, at, error, fins, process};

use crate::observed::{Observed, run};

fn client() -> Process {
    process(100, "curl")
}

fn parent() -> Process {
    process(200, "nginx")
}

fn worker() -> Process {
    process(201, "nginx-worker")
}

fn owner(observed: &Observed) -> (Option<Process>, OwnerSource) {
    let owner = observed.only_closed().connection.owner;
    (owner.process, owner.source)
}

fn listener(socket: u64, local: Endpoint, owner: Option<Process>) -> Vec<Event> {
    ScriptedSocket::listener(socket, 0, owner).with(|it| it.local = local).events()
}

/// Scripts a connection accepted at `local` and reset by its peer.
fn child(local: Endpoint) -> Vec<Event> {
    ScriptedSocket::accepted(1).step(100, Closed).flags(error(104)).with_all(|it| it.local = local).events()
}

fn accepted_at(local: Endpoint, listeners: &[(Endpoint, Option<Process>)]) -> (Option<Process>, OwnerSource) {
    let mut events = Vec::new();
    for (socket, &(local, owner)) in (10..).zip(listeners) {
        events.extend(listener(socket, local, owner));
    }
    events.extend(child(local));
    owner(&run(&events))
}

const NO_OWNER: (Option<Process>, OwnerSource) = (None, OwnerSource::Unknown);

fn listener_owner(process: Process) -> (Option<Process>, OwnerSource) {
    (Some(process), OwnerSource::Listener)
}

#[test]
fn an_accepted_connection_belongs_to_its_listener() {
    let any = at("0.0.0.0", 443);
    assert_eq!(accepted_at(any, &[(any, Some(parent()))]), listener_owner(parent()));
    assert_eq!(accepted_at(at("10.0.0.2", 443), &[(any, Some(parent()))]), listener_owner(parent()));
    assert_eq!(accepted_at(at("10.0.0.2", 444), &[(any, Some(parent()))]), NO_OWNER);
    assert_eq!(accepted_at(any, &[(any, None)]), NO_OWNER);
    assert_eq!(accepted_at(any, &[]), NO_OWNER);
}

#[test]
fn the_listener_on_the_exact_address_takes_precedence() {
    let listeners = [(at("0.0.0.0", 443), Some(parent())), (at("10.0.0.2", 443), Some(worker()))];
    assert_eq!(accepted_at(at("10.0.0.2", 443), &listeners), listener_owner(worker()));
    assert_eq!(accepted_at(at("10.0.0.3", 443), &listeners), listener_owner(parent()));
}

#[test]
fn a_dual_stack_listener_accepts_ipv4() {
    assert_eq!(
        accepted_at(at("10.0.0.2", 443), &[(at("::", 443), Some(parent()))]),
        listener_owner(parent())
    );
    assert_eq!(accepted_at(at("::1", 443), &[(at("::", 443), Some(parent()))]), listener_owner(parent()));
}

/// One program listens on an IPv4 port, another on the same IPv6 port. Kernels after 6.14 report the child's own
/// address at LISTEN→SYN_RECV.
#[test]
fn an_ipv4_listener_accepts_no_ipv6() {
    let v4_only = [(at("0.0.0.0", 443), Some(parent()))];
    assert_eq!(accepted_at(at("2001:db8::2", 443), &v4_only), NO_OWNER);
    let both = [(at("0.0.0.0", 443), Some(parent())), (at("::", 443), Some(worker()))];
    assert_eq!(accepted_at(at("10.0.0.2", 443), &both), listener_owner(parent()));
    assert_eq!(accepted_at(at("2001:db8::2", 443), &both), listener_owner(worker()));
}

#[test]
fn a_port_shared_by_several_processes_gives_no_owner() {
    let any = at("0.0.0.0", 443);
    assert_eq!(accepted_at(any, &[(any, Some(parent())), (any, Some(worker()))]), NO_OWNER);
    assert_eq!(accepted_at(any, &[(any, Some(parent())), (any, None)]), NO_OWNER);
    assert_eq!(accepted_at(any, &[(any, None), (any, Some(parent()))]), NO_OWNER);
    // Several sockets of one process are unambiguous.
    assert_eq!(accepted_at(any, &[(any, Some(parent())), (any, Some(parent()))]), listener_owner(parent()));
}

#[test]
fn a_listener_in_another_namespace_gives_no_owner() {
    let mut events =
        ScriptedSocket::listener(9, 0, Some(parent())).with(|it| it.netns = Some(Netns(1))).events();
    events.extend(child(at("0.0.0.0", 443)));
    assert_eq!(owner(&run(&events)), NO_OWNER);
}

#[test]
fn a_closed_listener_gives_no_owner() {
    let mut events = ScriptedSocket::listener(9, 0, Some(parent())).step(1, Closed).by(parent()).events();
    events.extend(child(at("0.0.0.0", 443)));
    assert_eq!(owner(&run(&events)), NO_OWNER);
}

#[test]
fn the_closing_process_replaces_the_listener() {
    let listener = ScriptedSocket::listener(9, 0, Some(parent()));
    let socket = ScriptedSocket::accepted(1)
        .step(100, FinWait1)
        .by(worker())
        .step(200, FinWait2)
        .step(300, Closed)
        .flags(fins());
    let observed = run(listener.events().iter().chain(&socket.events()));
    assert_eq!(owner(&observed), (Some(worker()), OwnerSource::Closer));
    // Before the close the listener was the owner.
    let seen: Vec<_> = observed.steps.iter().filter_map(|step| Some(step.connection?.owner.source)).collect();
    assert_eq!(seen[..3], [OwnerSource::Listener, OwnerSource::Listener, OwnerSource::Closer]);
}

#[test]
fn the_first_closing_process_is_kept() {
    let other = process(300, "other");
    let socket = ScriptedSocket::accepted(1)
        .step(100, FinWait1)
        .by(worker())
        .step(200, FinWait1)
        .by(other)
        .step(300, FinWait2)
        .step(400, Closed)
        .flags(fins());
    assert_eq!(owner(&run(&socket.events())), (Some(worker()), OwnerSource::Closer));
}

#[test]
fn a_client_keeps_the_process_that_connected() {
    let socket = ScriptedSocket::connected_client(1, client())
        .step(300, FinWait1)
        .by(process(300, "inherited"))
        .step(400, FinWait2)
        .step(500, Closed)
        .flags(fins());
    assert_eq!(owner(&run(&socket.events())), (Some(client()), OwnerSource::Connect));
}

#[test]
fn a_kernel_worker_is_never_the_owner() {
    let kworker = process(44, "kworker/1:2");
    let listener = ScriptedSocket::listener(9, 0, Some(parent()));
    let socket = ScriptedSocket::accepted(1)
        .step(100, FinWait1)
        .by(kworker)
        .step(200, FinWait2)
        .step(300, Closed)
        .flags(fins());
    assert_eq!(owner(&run(listener.events().iter().chain(&socket.events()))), listener_owner(parent()));
    assert_eq!(owner(&run(&socket.events())), NO_OWNER);
    // Processes choose their names, so only the exact prefix of kernel workers is excluded.
    let similar = process(45, "kworkers");
    let socket = ScriptedSocket::accepted(1)
        .step(100, FinWait1)
        .by(similar)
        .step(200, FinWait2)
        .step(300, Closed)
        .flags(fins());
    assert_eq!(owner(&run(&socket.events())), (Some(similar), OwnerSource::Closer));
}

#[test]
fn a_process_that_kills_a_socket_is_not_the_owner() {
    let ss = process(300, "ss");
    let listener = ScriptedSocket::listener(9, 0, Some(parent()));
    let killed = ScriptedSocket::accepted(1).step(100, Closed).by(ss).flags(error(103));
    assert_eq!(owner(&run(listener.events().iter().chain(&killed.events()))), listener_owner(parent()));
    assert_eq!(owner(&run(&killed.events())), NO_OWNER);
    let existing = ScriptedSocket::existing(1, Established).step(100, Closed).by(ss).flags(error(103));
    assert_eq!(owner(&run(&existing.events())), NO_OWNER);
    let client_killed =
        ScriptedSocket::connected_client(1, client()).step(300, Closed).by(ss).flags(error(103));
    assert_eq!(owner(&run(&client_killed.events())), (Some(client()), OwnerSource::Connect));
}

#[test]
fn an_existing_connection_belongs_to_the_closing_process() {
    let socket = ScriptedSocket::existing(1, tracer_core::event::TcpState::CloseWait)
        .step(100, LastAck)
        .by(worker())
        .step(200, Closed)
        .flags(fins());
    assert_eq!(owner(&run(&socket.events())), (Some(worker()), OwnerSource::Closer));
}

#[test]
fn a_connection_without_a_named_process_has_no_owner() {
    let socket = ScriptedSocket::client(1).step(0, SynSent).step(5, Closed).flags(error(111));
    assert_eq!(owner(&run(&socket.events())), NO_OWNER);
    let socket = ScriptedSocket::server(1).step(0, SynReceived).step(5, Closed).flags(error(104));
    assert_eq!(owner(&run(&socket.events())), NO_OWNER);
}
