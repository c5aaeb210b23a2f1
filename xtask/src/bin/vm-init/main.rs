//! The first process of the virtual machines that `cargo xtask vm` boots: it prepares the machine, runs
//! what its plan says, reports over the second serial port, and powers the machine off.

mod doctor;
mod machine;
#[path = "../../vm/protocol.rs"]
mod protocol;
mod report;
mod run;
mod smoke;
mod suites;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use rustix::system::{RebootCommand, reboot};

use self::{protocol::Plan, report::Report};

fn main() -> Result<()> {
    ensure!(
        rustix::process::getpid().is_init(),
        "vm-init is the first process of a virtual machine: start it by `cargo xtask vm`"
    );
    if let Err(error) = work() {
        // The host sees that the end of the report is missing; the console has the reason.
        eprintln!("vm-init: {error:#}");
    }
    rustix::fs::sync();
    reboot(RebootCommand::PowerOff).context("the machine cannot be powered off")
}

fn work() -> Result<()> {
    machine::mount_everything()?;
    let mut report = Report::open()?;
    report.booted()?;
    let plan = fs::read(protocol::PLAN).with_context(|| format!("{} cannot be read", protocol::PLAN))?;
    let plan: Plan = serde_json::from_slice(&plan).context("the plan is not understood")?;
    machine::load_modules(&plan.modules, &mut report)?;
    machine::raise_loopback()?;
    let program = Path::new(&plan.program);
    doctor::run(program, &mut report)?;
    smoke::run(program, &mut report)?;
    suites::run(&plan, &mut report)?;
    report.done()
}
