//! Measures the connection rate with each tracer, relative to the rate without one.

use anyhow::Result;

use super::{
    Bench,
    costs::Costs,
    kernel::BareProgram,
    load,
    numbers::Sample,
    page::{Section, Table, Target},
    running::Running,
    tracers::{self, TCPSTATES},
};

/// Target of `serve`, which runs permanently.
const SERVE: f64 = 0.97;
/// Target of the other commands.
const OTHERS: f64 = 0.90;
/// Target of the ratio to tcpstates.
const BESIDE_TCPSTATES: f64 = 2.5;

/// More connections than a run makes before its time limit.
const MANY: u64 = 10_000_000;

/// Measures each tracer between two runs without a tracer.
pub(super) fn measure(bench: &Bench, costs: &mut Costs) -> Result<Section> {
    let (own, missing) = tracers::own(&bench.programs);
    let tracers: Vec<_> = own.iter().chain(tracers::PEERS).collect();
    let mut rates = vec![Sample::default(); tracers.len()];
    let mut kept = vec![Sample::default(); tracers.len()];
    let mut alone = Sample::default();
    let (mut least_rates, mut least_kept) = (Sample::default(), Sample::default());
    let mut nothing_kept = Sample::default();
    for _ in 0..bench.scale(15, 2) {
        let mut before = rate(bench)?;
        alone.push(before);
        for (index, tracer) in tracers.iter().enumerate() {
            let running = Running::start(&mut tracer.command(&bench.programs))?;
            let traced = rate(bench)?;
            running.interrupt()?;
            let after = rate(bench)?;
            alone.push(after);
            rates[index].push(traced);
            kept[index].push(traced / f64::midpoint(before, after));
            before = after;
        }
        let least = BareProgram::uncounted(&bench.programs)?;
        let traced = rate(bench)?;
        least.end()?;
        let after = rate(bench)?;
        alone.push(after);
        least_rates.push(traced);
        least_kept.push(traced / f64::midpoint(before, after));
        let (again, last) = (rate(bench)?, rate(bench)?);
        alone.push(again);
        alone.push(last);
        nothing_kept.push(again / f64::midpoint(after, last));
    }

    let mut table = Table::new(&["tracer", "connections per second", "relative rate"]);
    table.row(["none".to_owned(), alone.text(0), nothing_kept.text(2)]);
    costs.alone(alone.median());
    for (index, tracer) in tracers.iter().enumerate() {
        costs.kept(tracer.name, kept[index].median());
        table.row([tracer.name.to_owned(), rates[index].text(0), kept[index].text(2)]);
    }
    table.row(["an empty program".to_owned(), least_rates.text(0), least_kept.text(2)]);
    let peer = tracers.iter().position(|tracer| tracer.name == TCPSTATES);
    let by_tcpstates = peer.map_or(f64::NAN, |index| kept[index].median());
    let mut targets = Vec::new();
    for (index, tracer) in tracers.iter().enumerate().filter(|(_, tracer)| tracer.ours) {
        let kept = kept[index].median();
        let limit = if tracer.name.ends_with("serve") { SERVE } else { OTHERS };
        let least = least_kept.median();
        let target = Target::at_least(format!("relative rate, {}", tracer.name), limit, kept, "");
        targets.push(target.beside_an_empty_program(limit, least));
        let what = format!("relative rate, {}, ratio to tcpstates", tracer.name);
        let target = Target::at_least(what, BESIDE_TCPSTATES, kept / by_tcpstates, "");
        targets.push(target.beside_an_empty_program(BESIDE_TCPSTATES, least / by_tcpstates));
    }
    for command in missing {
        let what = format!("relative rate, tcptrace-bpf {command}");
        let wanted = if command == "serve" { SERVE } else { OTHERS };
        targets.push(Target::not_in_this_build(what, &format!("at least {wanted:.2}")));
    }
    Ok(Section {
        title: "Churn",
        text: "One client opens and closes connections over loopback as fast as possible, and one server accepts \
               them. Both share the processors with the tracer. Each run with a tracer lies between two runs without \
               one. The relative rate is its rate divided by the mean rate of those two. The row \"none\" is a run \
               without a tracer, measured the same way: it shows the variation of the machine. The kernel's statistics \
               of BPF programs are off. The output of every tracer is discarded. The empty program shows the cost of \
               entering any BPF program, ten times per connection. A microsecond per connection costs a larger share \
               of the rate on a faster machine."
            .to_owned(),
        tables: vec![table],
        targets,
    })
}

/// Returns the number of connections per second.
#[expect(clippy::cast_precision_loss, reason = "a count of a few seconds")]
fn rate(bench: &Bench) -> Result<f64> {
    let done = load::churn(&bench.programs, MANY, Some(700))?;
    Ok(done.connections as f64 / done.seconds)
}
