//! How much the kernel's verifier has to look at: what grows there grows in every run of a program.

use tcptrace_bpf::source::kernel::load::{LoadOptions, Mode, load};
use tcptrace_tests::speed;

/// The most instructions that the verifier may walk through, those of a branch as often as it goes there: half as much
/// again as 6.18 does, because kernels differ in what they leave out.
const LIMITS: [(&str, u32); 7] = [
    ("transition_btf", 20_300),
    ("transition_btf_twin", 20_200),
    ("transition_tracepoint", 24_600),
    ("transition_tracepoint_twin", 22_100),
    ("syn_ack_retransmit", 1_250),
    ("first_read", 2_100),
    ("time_wait_end", 1_000),
];

#[test]
fn no_program_takes_the_verifier_longer_than_its_limit() {
    let options = LoadOptions { buffer_bytes: 4096, cpus: 1, only_netns: None, first_reads: true, twin: true };
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
            // Those of the other mode, and those that this kernel refused, are not loaded.
            let Ok(info) = program.info() else { continue };
            // Told since 5.16.
            let Some(count) = info.verified_instruction_count() else {
                speed::not_possible("it does not tell how many instructions were verified");
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
