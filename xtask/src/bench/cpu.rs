//! Measures the processor time of each tracer's processes per million transitions.

use anyhow::Result;

use super::{
    Bench,
    costs::Costs,
    load,
    numbers::Sample,
    page::{Section, Table, Target},
    running::Running,
    tracers,
};

/// Target, in seconds per million transitions.
const LIMIT_S: f64 = 1.0;

/// Measures every tracer.
#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
pub(super) fn measure(bench: &Bench, costs: &mut Costs) -> Result<Section> {
    let (own, missing) = tracers::own(&bench.programs);
    let mut table = Table::new(&["tracer", "seconds", "in user space", "in the kernel"]);
    let mut targets = Vec::new();
    for tracer in own.iter().chain(tracers::PEERS) {
        let (mut user, mut system, mut both) = (Sample::default(), Sample::default(), Sample::default());
        for _ in 0..bench.scale(3, 1) {
            let running = Running::start(&mut tracer.command(&bench.programs))?;
            let before = running.cpu_time()?;
            let done = load::churn(&bench.programs, bench.scale(50_000, 10_000), None)?;
            let after = running.cpu_time_when_idle()?;
            running.interrupt()?;
            costs.transitions(done.transitions as f64 / done.connections as f64);
            let millions = done.transitions as f64 / 1e6;
            user.push((after.user - before.user) / millions);
            system.push((after.system - before.system) / millions);
            both.push((after.user + after.system - before.user - before.system) / millions);
        }
        table.row([tracer.name.to_owned(), both.text(2), user.text(2), system.text(2)]);
        costs.processes(tracer.name, both.median());
        if tracer.ours {
            let what = format!("processor time per million transitions, {}", tracer.name);
            targets.push(Target::at_most(what, LIMIT_S, both.median(), "s"));
        }
    }
    targets.extend(missing.iter().map(|command| {
        let what = format!("processor time per million transitions, tcptrace-bpf {command}");
        Target::not_in_this_build(what, &format!("at most {LIMIT_S:.2} s"))
    }));
    Ok(Section {
        title: "Processor time",
        text: "Processor time of all processes of a tracer per million transitions of the churn. It excludes the \
               tracer's BPF programs: they run in the traced processes, and \"Time in the kernel\" measures them."
            .to_owned(),
        tables: vec![table],
        targets,
    })
}
