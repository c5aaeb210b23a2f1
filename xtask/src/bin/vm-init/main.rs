//! Init process of the virtual machines of `cargo xtask vm`: prepares the machine, executes the plan, reports
//! over the second serial port, and powers the machine off.

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
        "vm-init is the init process of a virtual machine: start it with `cargo xtask vm`"
    );
    if let Err(error) = execute_plan() {
        // The host detects the missing `Done` message; the console log has the reason.
        eprintln!("vm-init: {error:#}");
    }
    rustix::fs::sync();
    reboot(RebootCommand::PowerOff).context("could not power off the machine")
}

fn execute_plan() -> Result<()> {
    machine::mount_everything()?;
    let mut report = Report::open()?;
    report.booted()?;
    let plan = fs::read(protocol::PLAN).with_context(|| format!("could not read {}", protocol::PLAN))?;
    let plan: Plan = serde_json::from_slice(&plan).context("could not parse the plan")?;
    machine::load_modules(&plan.modules, &mut report)?;
    machine::bring_up_loopback()?;
    let program = Path::new(&plan.program);
    doctor::run(program, &mut report)?;
    smoke::run(program, &mut report)?;
    suites::run(&plan, &mut report)?;
    report.done()
}
