//! Booting a kernel in qemu and listening to it.

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

use super::{kernel::Kernel, protocol::Verdict};

/// What a run gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// What init reported, in order.
    pub(crate) verdicts: Vec<Verdict>,
    /// How the machine ended, when that was not by powering itself off after its last word.
    pub(crate) trouble: Option<String>,
    /// From qemu's start to its end.
    pub(crate) took: Duration,
}

/// How a machine is run.
pub(crate) struct Options {
    /// Let the processor run the guest itself.
    pub(crate) kvm: bool,
    /// After this the machine is switched off.
    pub(crate) limit: Duration,
}

/// Boots a kernel with an initramfs. `folder` gets the console's text, what init reported, and qemu's messages.
pub(crate) fn run(kernel: &Kernel, initramfs: &Path, folder: &Path, options: &Options) -> Result<Run> {
    let console = folder.join("console.log");
    let report = folder.join("report.jsonl");
    let messages = folder.join("qemu.log");
    for file in [&console, &report] {
        File::create(file).with_context(|| format!("could not create {}", file.display()))?;
    }
    let accelerator: &[&str] = if options.kvm {
        &["-accel", "kvm", "-cpu", "host"]
    } else {
        &["-accel", "tcg,thread=multi", "-cpu", "max"]
    };
    let start = Instant::now();
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(accelerator)
        .args(["-m", "2048", "-smp", "2", "-nodefaults", "-display", "none", "-no-reboot"])
        // The first port is the console, the second is init's own.
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .arg("-serial")
        .arg(format!("file:{}", report.display()))
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", "console=ttyS0 panic=-1 quiet rdinit=/init"])
        .stdin(Stdio::null())
        .stdout(File::create(&messages)?)
        .stderr(File::options().append(true).open(&messages)?)
        .spawn()
        .context("could not start qemu-system-x86_64")?;
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
    let verdicts = read(&report)?;
    let trouble = match status {
        _ if verdicts.last() == Some(&Verdict::Done) => None,
        None => Some(format!("switched off after {} s", options.limit.as_secs())),
        Some(status) if !status.success() => {
            let text = fs::read_to_string(&messages).unwrap_or_default();
            Some(format!("qemu ended with {status}: {}", text.trim()))
        }
        Some(_) => Some(format!("it ended before init was done; its console is in {}", console.display())),
    };
    Ok(Run { verdicts, trouble, took })
}

fn read(report: &Path) -> Result<Vec<Verdict>> {
    let text = fs::read(report).with_context(|| format!("could not read {}", report.display()))?;
    let text = String::from_utf8_lossy(&text);
    // A machine that died may have left half a line.
    let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    complete
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            serde_json::from_str(line)
                .map_err(io::Error::from)
                .with_context(|| format!("init reported what is not understood: {line}"))
        })
        .collect()
}
