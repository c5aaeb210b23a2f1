//! Limits the number of instructions that the kernel's verifier processes: their growth also shows in every
//! run of a program.

use tcptrace_bpf::sources::live::{
    Hooks,
    load::{LoadOptions, Mode, load},
};
use tcptrace_tests::speed;

/// Maximum instructions processed by the verifier, counting each branch as often as it is walked: half as
/// much again as on 6.18, because kernels prune differently.
const LIMITS: [(&str, u32); 14] = [
    ("transition_btf", 18_000),
    ("transition_btf_twin", 18_000),
    ("transition_tracepoint", 32_000),
    ("transition_tracepoint_twin", 20_000),
    ("syn_ack_retransmit", 1_550),
    ("first_read", 2_100),
    ("first_write", 2_300),
    ("first_write_return", 2_300),
    ("time_wait_end", 1_000),
    ("accepted", 2_100),
    ("reset_sent", 2_800),
    ("reset_received", 800),
    ("segment_dropped", 3_200),
    ("accept_queue_full", 2_800),
];

#[test]
fn verified_instructions_stay_within_the_limits() {
    let options =
        LoadOptions { buffer_bytes: 4096, cpus: 1, only_netns: None, hooks: Hooks::ALL, twin: true };
    let mut counts = Vec::new();
    for mode in [Mode::Btf, Mode::Tracepoint] {
        let loaded = match load(mode, options) {
            Ok(loaded) => loaded,
            Err(error) => {
                speed::not_possible(&format!("mode {}: {error}", mode.name()));
                continue;
            }
        };
        for (name, program) in loaded.ebpf.programs() {
            // Programs of the other mode, and programs that this kernel rejected, are not loaded.
            let Ok(info) = program.info() else { continue };
            // Reported since 5.16.
            let Some(count) = info.verified_instruction_count() else {
                speed::not_possible("it does not report the number of verified instructions");
                return;
            };
            counts.push((name.to_owned(), count));
        }
    }
    assert!(!counts.is_empty(), "no program could be loaded");
    for (name, count) in &counts {
        let limit = LIMITS.iter().find(|(limited, _)| limited == name);
        let (_, limit) = limit.unwrap_or_else(|| panic!("{name} has no limit; it has {count} instructions"));
        assert!(
            count <= limit,
            "{name}: {count} instructions verified, {limit} are the limit; all counts: {counts:?}"
        );
    }
}
