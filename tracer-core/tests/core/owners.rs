//! Whose a connection is, and how that is known.

use tracer_core::{
    event::{
        Endpoint, Event, Process,
        TcpState::{Closed, Established, FinWait1, FinWait2, LastAck, SynReceived, SynSent},
    },
    owner::OwnerSource,
};
use tracer_core_testing::script::{Life, at, error, fins, process};

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
    let owner = observed.only().connection.owner;
    (owner.process, owner.source)
}

fn listener(socket: u64, local: Endpoint, owner: Option<Process>) -> Vec<Event> {
    Life::listener(socket, 0, owner).with(|it| it.local = local).events()
}

/// A child that arrived at `local`, broken by its peer.
fn child(local: Endpoint) -> Vec<Event> {
    Life::accepted(1).step(100, Closed).flags(error(104)).with_all(|it| it.local = local).events()
}

fn accepted_at(local: Endpoint, listeners: &[(Endpoint, Option<Process>)]) -> (Option<Process>, OwnerSource) {
    let mut events = Vec::new();
    for (socket, &(local, owner)) in (10..).zip(listeners) {
        events.extend(listener(socket, local, owner));
    }
    events.extend(child(local));
    owner(&run(&events))
}

const NOBODY: (Option<Process>, OwnerSource) = (None, OwnerSource::Unknown);

fn listens(process: Process) -> (Option<Process>, OwnerSource) {
    (Some(process), OwnerSource::Listener)
}

#[test]
fn a_child_is_its_listener_s() {
    let any = at("0.0.0.0", 443);
    assert_eq!(accepted_at(any, &[(any, Some(parent()))]), listens(parent()));
    assert_eq!(accepted_at(at("10.0.0.2", 443), &[(any, Some(parent()))]), listens(parent()));
    assert_eq!(accepted_at(at("10.0.0.2", 444), &[(any, Some(parent()))]), NOBODY);
    assert_eq!(accepted_at(any, &[(any, None)]), NOBODY);
    assert_eq!(accepted_at(any, &[]), NOBODY);
}

#[test]
fn the_listener_on_the_exact_address_is_preferred() {
    let listeners = [(at("0.0.0.0", 443), Some(parent())), (at("10.0.0.2", 443), Some(worker()))];
    assert_eq!(accepted_at(at("10.0.0.2", 443), &listeners), listens(worker()));
    assert_eq!(accepted_at(at("10.0.0.3", 443), &listeners), listens(parent()));
}

#[test]
fn a_dual_stack_listener_accepts_ipv4() {
    assert_eq!(accepted_at(at("10.0.0.2", 443), &[(at("::", 443), Some(parent()))]), listens(parent()));
    assert_eq!(accepted_at(at("::1", 443), &[(at("::", 443), Some(parent()))]), listens(parent()));
}

/// One program listens on IPv4, another on the same port of IPv6. Kernels after 6.14 give the child's own
/// address at LISTEN→SYN_RECV.
#[test]
fn an_ipv4_listener_accepts_no_ipv6() {
    let v4_only = [(at("0.0.0.0", 443), Some(parent()))];
    assert_eq!(accepted_at(at("2001:db8::2", 443), &v4_only), NOBODY);
    let both = [(at("0.0.0.0", 443), Some(parent())), (at("::", 443), Some(worker()))];
    assert_eq!(accepted_at(at("10.0.0.2", 443), &both), listens(parent()));
    assert_eq!(accepted_at(at("2001:db8::2", 443), &both), listens(worker()));
}

#[test]
fn a_port_shared_by_several_processes_names_none() {
    let any = at("0.0.0.0", 443);
    assert_eq!(accepted_at(any, &[(any, Some(parent())), (any, Some(worker()))]), NOBODY);
    assert_eq!(accepted_at(any, &[(any, Some(parent())), (any, None)]), NOBODY);
    assert_eq!(accepted_at(any, &[(any, None), (any, Some(parent()))]), NOBODY);
    // One process with several sockets is certain.
    assert_eq!(accepted_at(any, &[(any, Some(parent())), (any, Some(parent()))]), listens(parent()));
}

#[test]
fn another_namespace_s_listener_does_not_count() {
    let mut events = Life::listener(9, 0, Some(parent())).with(|it| it.netns = Some(1)).events();
    events.extend(child(at("0.0.0.0", 443)));
    assert_eq!(owner(&run(&events)), NOBODY);
}

#[test]
fn a_closed_listener_gives_no_owner() {
    let mut events = Life::listener(9, 0, Some(parent())).step(1, Closed).by(parent()).events();
    events.extend(child(at("0.0.0.0", 443)));
    assert_eq!(owner(&run(&events)), NOBODY);
}

#[test]
fn the_closer_corrects_the_listener_s_owner() {
    let listener = Life::listener(9, 0, Some(parent()));
    let life = Life::accepted(1)
        .step(100, FinWait1)
        .by(worker())
        .step(200, FinWait2)
        .step(300, Closed)
        .flags(fins());
    let observed = run(listener.events().iter().chain(&life.events()));
    assert_eq!(owner(&observed), (Some(worker()), OwnerSource::Closer));
    // Before that it was the listener's.
    let seen: Vec<_> = observed.steps.iter().filter_map(|step| Some(step.connection?.owner.source)).collect();
    assert_eq!(seen[..3], [OwnerSource::Listener, OwnerSource::Listener, OwnerSource::Closer]);
}

#[test]
fn the_first_closer_stays() {
    let other = process(300, "other");
    let life = Life::accepted(1)
        .step(100, FinWait1)
        .by(worker())
        .step(200, FinWait1)
        .by(other)
        .step(300, FinWait2)
        .step(400, Closed)
        .flags(fins());
    assert_eq!(owner(&run(&life.events())), (Some(worker()), OwnerSource::Closer));
}

#[test]
fn a_client_stays_with_whoever_connected() {
    let life = Life::connected_client(1, client())
        .step(300, FinWait1)
        .by(process(300, "inherited"))
        .step(400, FinWait2)
        .step(500, Closed)
        .flags(fins());
    assert_eq!(owner(&run(&life.events())), (Some(client()), OwnerSource::Connect));
}

#[test]
fn a_kernel_worker_that_closes_owns_nothing() {
    let kworker = process(44, "kworker/1:2");
    let listener = Life::listener(9, 0, Some(parent()));
    let life =
        Life::accepted(1).step(100, FinWait1).by(kworker).step(200, FinWait2).step(300, Closed).flags(fins());
    assert_eq!(owner(&run(listener.events().iter().chain(&life.events()))), listens(parent()));
    assert_eq!(owner(&run(&life.events())), NOBODY);
    // A process may call itself something like it.
    let similar = process(45, "kworkers");
    let life =
        Life::accepted(1).step(100, FinWait1).by(similar).step(200, FinWait2).step(300, Closed).flags(fins());
    assert_eq!(owner(&run(&life.events())), (Some(similar), OwnerSource::Closer));
}

#[test]
fn whoever_kills_owns_nothing() {
    let ss = process(300, "ss");
    let listener = Life::listener(9, 0, Some(parent()));
    let killed = Life::accepted(1).step(100, Closed).by(ss).flags(error(103));
    assert_eq!(owner(&run(listener.events().iter().chain(&killed.events()))), listens(parent()));
    assert_eq!(owner(&run(&killed.events())), NOBODY);
    let existing = Life::existing(1, Established).step(100, Closed).by(ss).flags(error(103));
    assert_eq!(owner(&run(&existing.events())), NOBODY);
    let client_killed = Life::connected_client(1, client()).step(300, Closed).by(ss).flags(error(103));
    assert_eq!(owner(&run(&client_killed.events())), (Some(client()), OwnerSource::Connect));
}

#[test]
fn an_existing_connection_is_its_closer_s() {
    let life = Life::existing(1, tracer_core::event::TcpState::CloseWait)
        .step(100, LastAck)
        .by(worker())
        .step(200, Closed)
        .flags(fins());
    assert_eq!(owner(&run(&life.events())), (Some(worker()), OwnerSource::Closer));
}

#[test]
fn a_connection_of_nobody_known() {
    let life = Life::client(1).step(0, SynSent).step(5, Closed).flags(error(111));
    assert_eq!(owner(&run(&life.events())), NOBODY);
    let life = Life::server(1).step(0, SynReceived).step(5, Closed).flags(error(104));
    assert_eq!(owner(&run(&life.events())), NOBODY);
}
