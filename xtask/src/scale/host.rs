//! One host: what its connections cost in the kernel, in the buffer, in memory and on disk.

use tracer_ebpf::{AcceptQueue, Ipv6Addresses, Process, Record, TcpInfo};

use super::table::{bytes, short, table, time, whole};

/// Transitions of one socket's life: opened, established, three to close (docs/output.md has their names).
const TRANSITIONS: f64 = 5.0;
/// Those among them whose record also holds the kernel's figures: to ESTABLISHED and to CLOSE.
const WITH_INFO: f64 = 2.0;
/// Those that name a process: the close of a socket.
const WITH_PROCESS: f64 = 1.0;

/// Budget for the whole program, kernel and user: CPU seconds for a million transitions of `serve`.
const CPU_PER_MILLION: f64 = 1.0;
/// Bytes of a recording for a transition, compressed.
const RECORDED: f64 = 21.0;
/// Bytes of an open connection in the table, its share of the index included.
const TRACKED: f64 = 280.0;
/// Resident memory with an empty table.
const IDLE: f64 = 20e6;
/// Bytes of the default buffer of up to sixteen CPUs.
const BUFFER: f64 = 8.0 * 1024.0 * 1024.0;
/// The part of it that is for transitions; the rest is for other records, and for CPUs that come later.
const FOR_TRANSITIONS: f64 = 0.5;

/// Connections a second that hosts of some kinds open or accept.
pub(super) const HOSTS: [(&str, f64); 5] = [
    ("a database, or a desktop", 2.0),
    ("an application server", 50.0),
    ("a web server without keep-alive", 1_000.0),
    ("a proxy", 10_000.0),
    ("a very busy proxy", 30_000.0),
];

/// Transitions for so many connections.
pub(super) fn transitions(connections: f64) -> f64 {
    connections * TRANSITIONS
}

/// Bytes that their transitions take in the buffer, when all are accepted over IPv4.
pub(super) fn buffer_bytes(connections: f64) -> f64 {
    let each = TRANSITIONS * size::<Record>()
        + WITH_INFO * size::<TcpInfo>()
        + WITH_PROCESS * size::<Process>()
        // Where a connection leaves its listener.
        + size::<AcceptQueue>();
    connections * each
}

/// Seconds until the default buffer is full of transitions, when all CPUs have their share of them.
pub(super) fn buffer_seconds(connections: f64) -> f64 {
    BUFFER * FOR_TRANSITIONS / buffer_bytes(connections)
}

/// Bytes of a record.
fn size<T>() -> f64 {
    f64::from(u32::try_from(size_of::<T>()).expect("a record is a few hundred bytes"))
}

/// Share of one CPU.
pub(super) fn cpu(connections: f64) -> f64 {
    transitions(connections) / 1e6 * CPU_PER_MILLION
}

/// Bytes of a recording.
pub(super) fn recorded(connections: f64) -> f64 {
    transitions(connections) * RECORDED
}

/// The table of what the others start from.
pub(super) fn inputs() -> String {
    let row = |name: &str, value: String, source: &str| [name.to_owned(), value, source.to_owned()];
    table(
        ["input", ">value", "where it is from"],
        &[
            row("transitions of a socket's life", whole(TRANSITIONS), "the TCP state diagram"),
            row("bytes of a record", size_of::<Record>().to_string(), "the wire format"),
            row("more with IPv6 addresses", size_of::<Ipv6Addresses>().to_string(), "the wire format"),
            row("more with the kernel's figures", size_of::<TcpInfo>().to_string(), "the wire format"),
            row("more with a process", size_of::<Process>().to_string(), "the wire format"),
            row("more with the accept queue", size_of::<AcceptQueue>().to_string(), "the wire format"),
            row("CPU seconds for a million transitions", short(CPU_PER_MILLION), "the target of `serve`"),
            row(
                "bytes of a recorded transition",
                whole(RECORDED),
                "measured on churn over loopback, whose addresses repeat",
            ),
            row(
                "bytes of an open connection",
                whole(TRACKED),
                "a budget; docs/performance.md has what was measured",
            ),
            row("memory with an empty table", bytes(IDLE), "the target"),
        ],
    )
}

/// The table of what hosts of some kinds cost.
pub(super) fn hosts() -> String {
    let rows = HOSTS.map(|(name, connections)| {
        [
            name.to_owned(),
            whole(connections),
            whole(transitions(connections)),
            bytes(buffer_bytes(connections)),
            format!("{} %", short(cpu(connections) * 100.0)),
            bytes(recorded(connections)),
            bytes(recorded(connections) * 86_400.0),
        ]
    });
    table(
        [
            "host",
            ">connections/s",
            ">transitions/s",
            ">buffer/s",
            ">of one CPU",
            ">recording/s",
            ">recording/day",
        ],
        &rows,
    )
}

/// The table of how long the reader may pause before the buffer is full.
pub(super) fn pauses() -> String {
    let rows = HOSTS.map(|(name, connections)| {
        let [small, default, large, largest] =
            [0.25, 1.0, 4.0, 16.0].map(|times| time(buffer_seconds(connections) * times));
        [name.to_owned(), small, default, large, largest]
    });
    table(["host", ">`--buffer 2MiB`", ">8MiB (default)", ">32MiB", ">128MiB"], &rows)
}

/// The table of memory by connections that are open at once.
pub(super) fn memory() -> String {
    let rows = [0.0, 10_000.0, 100_000.0, 1_000_000.0]
        .map(|open| [whole(open), bytes(open * TRACKED), bytes(IDLE + open * TRACKED + BUFFER)]);
    table([">open connections", ">table", ">in all, with the buffer"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accepted_connection_takes_five_records() {
        assert!((buffer_bytes(1.0) - (5.0 * 64.0 + 2.0 * 72.0 + 24.0 + 8.0)).abs() < 1e-9);
        assert!((transitions(30_000.0) - 150_000.0).abs() < 1e-9);
        assert!((cpu(1000.0) - 0.005).abs() < 1e-12);
    }
}
