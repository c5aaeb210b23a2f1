//! Boots a kernel in qemu and reads its report.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{
    kernel::Kernel,
    protocol::{GuestMessage, REPORT_PORT},
};
use crate::architecture::Architecture;

/// Result of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MachineRun {
    /// Messages of init, in order.
    pub(crate) messages: Vec<GuestMessage>,
    /// Why the machine stopped before init sent `Done`, if it did.
    pub(crate) failure: Option<String>,
    /// Run time of qemu.
    pub(crate) took: Duration,
}

/// Options of a virtual machine.
pub(crate) struct Options {
    /// Architecture of the machine.
    pub(crate) architecture: Architecture,
    /// Use KVM instead of emulation.
    pub(crate) kvm: bool,
    /// Time after which the machine is killed.
    pub(crate) limit: Duration,
}

/// Returns the Debian package with the emulator.
pub(crate) const fn package(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "qemu-system-x86",
        Architecture::Aarch64 => "qemu-system-arm",
    }
}

/// Hardware of a machine.
struct Hardware {
    /// Arguments of qemu.
    arguments: &'static [&'static str],
    /// The guest's device of the first serial port, the console.
    console: &'static str,
    /// The guest's device of the second serial port, which carries init's report.
    report: &'static str,
    /// Arguments of qemu for the second serial port, with the host's side `report`.
    report_port: &'static [&'static str],
}

const fn hardware(architecture: Architecture) -> Hardware {
    match architecture {
        Architecture::X86_64 => Hardware {
            arguments: &[],
            console: "ttyS0",
            report: "/dev/ttyS1",
            report_port: &["-serial", "chardev:report"],
        },
        // The board has a single serial port, so the second one is a PCI card.
        Architecture::Aarch64 => Hardware {
            arguments: &["-machine", "virt"],
            console: "ttyAMA0",
            report: "/dev/ttyS0",
            report_port: &["-device", "pci-serial,chardev=report"],
        },
    }
}

/// Boots a kernel with an initramfs. Writes the console log, init's report and qemu's messages to `folder`.
pub(crate) fn run(kernel: &Kernel, initramfs: &Path, folder: &Path, options: &Options) -> Result<MachineRun> {
    let console = folder.join("console.log");
    let report = folder.join("report.jsonl");
    let qemu_log = folder.join("qemu.log");
    for file in [&console, &report] {
        File::create(file).with_context(|| format!("could not create {}", file.display()))?;
    }
    let accelerator: &[&str] = if options.kvm {
        &["-accel", "kvm", "-cpu", "host"]
    } else {
        &["-accel", "tcg,thread=multi", "-cpu", "max"]
    };
    let start = Instant::now();
    let hardware = hardware(options.architecture);
    let program = format!("qemu-system-{}", options.architecture);
    let mut qemu = Command::new(&program)
        .args(accelerator)
        .args(hardware.arguments)
        .args(["-m", "2048", "-smp", "2", "-nodefaults", "-display", "none", "-no-reboot"])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-chardev")
        .arg(format!("file,id=report,path={}", report.display()))
        .args(hardware.report_port)
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .arg("-append")
        .arg(format!(
            "console={} panic=-1 quiet rdinit=/init {REPORT_PORT}={}",
            hardware.console, hardware.report
        ))
        .stdin(Stdio::null())
        .stdout(File::create(&qemu_log)?)
        .stderr(File::options().append(true).open(&qemu_log)?)
        .spawn()
        .with_context(|| format!("could not start {program}"))?;
    let status = loop {
        if let Some(status) = qemu.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > options.limit {
            qemu.kill()?;
            qemu.wait()?;
            break None;
        }
        thread::sleep(Duration::from_millis(50));
    };
    let took = start.elapsed();
    let messages = read(&report)?;
    let failure = match status {
        _ if messages.last() == Some(&GuestMessage::Done) => None,
        None => Some(format!("killed after {} s", options.limit.as_secs())),
        Some(status) if !status.success() => {
            let text = fs::read_to_string(&qemu_log).unwrap_or_default();
            Some(format!("qemu exited with {status}: {}", text.trim()))
        }
        Some(_) => Some(format!("it stopped before init was done; the console log is {}", console.display())),
    };
    Ok(MachineRun { messages, failure, took })
}

fn read(report: &Path) -> Result<Vec<GuestMessage>> {
    let text = fs::read(report).with_context(|| format!("could not read {}", report.display()))?;
    let text = String::from_utf8_lossy(&text);
    // A crashed machine may leave an incomplete last line.
    let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    complete
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            serde_json::from_str(line)
                .map_err(io::Error::from)
                .with_context(|| format!("could not parse a message of init: {line}"))
        })
        .collect()
}
