//! One host: what its connections cost in the kernel, in the ring buffer, in memory and on disk.

use tracer_ebpf::{Record, RecordWithInfo};

use super::table::{bytes, short, table, time, whole};

/// Transitions of one socket's life: opened, established, three to close (docs/output.md has their names).
const TRANSITIONS: f64 = 5.0;
/// Those among them whose record also holds the kernel's figures: to ESTABLISHED and to CLOSE.
const WITH_INFO: f64 = 2.0;
/// Records of another kind: of every accepted connection, who first read from it.
const FIRST_READS: f64 = 1.0;
/// What the kernel puts before every record in a ring buffer (`BPF_RINGBUF_HDR_SZ`).
const RING_HEADER: f64 = 8.0;

/// Budget for the whole program, kernel and user: CPU seconds for a million transitions of `serve`.
const CPU_PER_MILLION: f64 = 1.0;
/// Bytes of a recording for a transition, compressed.
const RECORDED: f64 = 21.0;
/// Bytes of an open connection in the table, its share of the index included.
const TRACKED: f64 = 280.0;
/// Resident memory with an empty table.
const IDLE: f64 = 20e6;
/// Bytes of the default ring buffer.
const BUFFER: f64 = 4.0 * 1024.0 * 1024.0;

/// Connections a second that hosts of some kinds open or accept.
pub(super) const HOSTS: [(&str, f64); 5] = [
    ("a database, or a desktop", 2.0),
    ("an application server", 50.0),
    ("a web server without keep-alive", 1_000.0),
    ("a proxy", 10_000.0),
    ("all that two CPUs can do over loopback", 30_000.0),
];

/// Transitions for so many connections.
pub(super) fn transitions(connections: f64) -> f64 {
    connections * TRANSITIONS
}

/// Bytes that they take in the ring buffer, when all are accepted.
pub(super) fn ring_bytes(connections: f64) -> f64 {
    let plain = size::<Record>() + RING_HEADER;
    let with_info = size::<RecordWithInfo>() + RING_HEADER;
    connections * ((TRANSITIONS - WITH_INFO + FIRST_READS) * plain + WITH_INFO * with_info)
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
            row(
                "bytes of one with the kernel's figures",
                size_of::<RecordWithInfo>().to_string(),
                "the wire format",
            ),
            row("bytes before each in the ring buffer", whole(RING_HEADER), "the kernel"),
            row("CPU seconds for a million transitions", short(CPU_PER_MILLION), "the target of `serve`"),
            row("bytes of a recorded transition", whole(RECORDED), "measured on churn over loopback"),
            row("bytes of an open connection", whole(TRACKED), "measured with a million"),
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
            bytes(ring_bytes(connections)),
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
            ">ring buffer/s",
            ">of one CPU",
            ">recording/s",
            ">recording/day",
        ],
        &rows,
    )
}

/// The table of how long the reader may pause before the ring buffer is full.
pub(super) fn pauses() -> String {
    let rows = HOSTS.map(|(name, connections)| {
        let [small, default, large, largest] =
            [0.25, 1.0, 4.0, 16.0].map(|times| time(BUFFER * times / ring_bytes(connections)));
        [name.to_owned(), small, default, large, largest]
    });
    table(["host", ">`--buffer 1MiB`", ">4MiB (default)", ">16MiB", ">64MiB"], &rows)
}

/// The table of memory by connections that are open at once.
pub(super) fn memory() -> String {
    let rows = [0.0, 10_000.0, 100_000.0, 1_000_000.0]
        .map(|open| [whole(open), bytes(open * TRACKED), bytes(IDLE + open * TRACKED + BUFFER)]);
    table([">open connections", ">table", ">in all, with the ring buffer"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_takes_four_plain_records_and_two_with_figures() {
        assert!((ring_bytes(1.0) - (4.0 * 128.0 + 2.0 * 208.0)).abs() < 1e-9);
        assert!((transitions(30_000.0) - 150_000.0).abs() < 1e-9);
        assert!((cpu(1000.0) - 0.005).abs() < 1e-12);
    }
}
