//! Writes a recording of generated events.

use std::{fs::File, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tcptrace_bench::workload::{self, Workload};
use tcptrace_bpf::{
    host::{CgroupResolver, HostNames, RecordedCgroups},
    recording::{Header, Writer},
};
use tracer_core::{
    event::{ClockOffset, Event, SourceCounts},
    lifecycle::TimeWaitModel,
};

/// Events between two flushes: `record` flushes every second, and the workload has 20,000 events a second.
const FLUSH: u64 = 20_000;

/// Writes a recording of a busy host with `live` open connections and the given number of transitions.
pub(crate) fn write(path: &Path, live: usize, transitions: u64) -> Result<Value> {
    let mut workload = Workload::new(live, workload::BUSY);
    let listener = workload.listener();
    let header = Header {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        wire_version: tracer_ebpf::WIRE_VERSION,
        host: HostNames {
            name: "generated".to_owned(),
            kernel: "6.18.0".to_owned(),
            mode: "btf".to_owned(),
            hooks: String::new(),
        },
        clock: ClockOffset { to_utc_ns: 1_795_000_000_000_000_000 },
        time_wait: TimeWaitModel::default(),
        started: listener.time(),
        run: "0000000000000000".to_owned(),
        part: 1,
        frozen_by: None,
    };
    let mut owners = CgroupResolver::recorded(RecordedCgroups::default());
    let mut counts = SourceCounts { skipped: Some(0), ..SourceCounts::default() };
    let file = File::create(path).with_context(|| format!("could not create {}", path.display()))?;
    let failed = || format!("could not write {}", path.display());
    let mut writer = Writer::new(file, &header).with_context(failed)?;
    let started = Event::DumpEnd { started: listener.time(), timewait: false };
    for event in [started, listener].into_iter().chain(std::iter::repeat_with(|| workload.next_event())) {
        writer.event(&event, &mut owners).with_context(failed)?;
        counts.seen += u64::from(matches!(event, Event::Transition(_)));
        if counts.seen.is_multiple_of(FLUSH) {
            writer.flush(&counts, &mut owners).with_context(failed)?;
        }
        if counts.seen == transitions {
            break;
        }
    }
    writer.finish(&counts, &mut owners).with_context(failed)?;
    let bytes = path.metadata().with_context(failed)?.len();
    Ok(json!({ "transitions": counts.seen, "bytes": bytes }))
}
