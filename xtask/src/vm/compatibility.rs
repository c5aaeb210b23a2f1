//! Writes `docs/compatibility.md`: the tested kernels, and the features of each.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use super::{
    protocol::TestOutcome,
    results::{TestedKernel, is_init_test},
};

const HEAD: &str = "\
<!-- Written by `cargo xtask vm --write-compatibility`; do not edit. -->
# Kernels

`cargo xtask vm` boots each of these Debian kernels in a virtual machine, runs `tcptrace-bpf doctor` and the kernel
tests there, and reports the results below. The program probes each kernel feature at start and never derives it from
the version, so it supports kernels between these and kernels of other distributions. Run `tcptrace-bpf doctor` to
check your kernel.

The processor is emulated. Scenarios therefore open fewer connections, have longer limits, and allow larger differences
between reported and measured durations: 20 ms or 5 % instead of 2 ms or 2 %, and 20 or 30 ms instead of 2 or 3 ms
beyond the bounds of a client's round-trip sample and of a SYN cookie's time. Four tests run in parallel. A failed test
runs again alone; if it passes then, it counts as passed and is listed under \"Exceptions\".
";

/// Name of the test program with the scenarios.
const SCENARIOS: &str = "scenarios";

/// Writes the page.
pub(crate) fn write(path: &Path, tested: &[TestedKernel]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
    }
    fs::write(path, page(tested)?).with_context(|| format!("could not write {}", path.display()))
}

fn page(tested: &[TestedKernel]) -> Result<String> {
    let mut page = HEAD.to_owned();
    page += "\n## Features by kernel\n\n";
    row(&mut page, "", tested.iter().map(|kernel| format!("`{}`", kernel.release)))?;
    row(&mut page, "---", tested.iter().map(|_| "---".to_owned()))?;
    row(&mut page, "build", tested.iter().map(|kernel| build(&kernel.version)))?;
    for name in features(tested) {
        let cells = tested.iter().map(|kernel| match kernel.check(name) {
            Some(check) if check.found => "yes".to_owned(),
            Some(_) => "**no**".to_owned(),
            None => "unknown".to_owned(),
        });
        row(&mut page, name, cells)?;
    }
    row(
        &mut page,
        "program checks, both modes",
        tested.iter().map(|kernel| kernel.count(is_init_test).to_string()),
    )?;
    row(
        &mut page,
        "tracer tests",
        tested
            .iter()
            .map(|kernel| kernel.count(|test| !is_init_test(test) && test.suite != SCENARIOS).to_string()),
    )?;
    row(
        &mut page,
        "scenarios",
        tested.iter().map(|kernel| kernel.count(|test| test.suite == SCENARIOS).to_string()),
    )?;
    reasons(&mut page, tested)?;
    Ok(page)
}

fn row(page: &mut String, head: &str, cells: impl Iterator<Item = String>) -> Result<()> {
    write!(page, "| {head} |")?;
    for cell in cells {
        write!(page, " {cell} |")?;
    }
    page.push('\n');
    Ok(())
}

/// Returns the package version in `uname -v`, such as 6.12.107-1 in `#1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1
/// (2026-05-01)`.
fn build(version: &str) -> String {
    let mut words = version.split_whitespace().skip_while(|word| *word != "Debian");
    words.nth(1).unwrap_or(version).to_owned()
}

/// Returns the names of all checks on any kernel, in order. The check `kernel` only names the kernel.
fn features(tested: &[TestedKernel]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for check in tested.iter().flat_map(|kernel| &kernel.checks) {
        if check.name != "kernel" && !names.contains(&check.name.as_str()) {
            names.push(&check.name);
        }
    }
    names
}

/// Lists missing features and tests that failed, were not possible or passed on retry, with reasons and
/// kernels.
fn reasons(page: &mut String, tested: &[TestedKernel]) -> Result<()> {
    let mut reasons: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
    for kernel in tested {
        let missing = kernel.checks.iter().filter(|check| !check.found);
        let missing = missing.map(|check| (check.name.as_str(), format!("missing: {}", check.detail)));
        let tests = kernel.tests.iter().filter_map(|test| match &test.outcome {
            TestOutcome::Passed => None,
            TestOutcome::PassedOnRetry { .. } => Some((test.name.as_str(), "passed on retry".to_owned())),
            TestOutcome::NotPossible { reason } => {
                Some((test.name.as_str(), format!("not possible: {reason}")))
            }
            // The failure message is only useful to developers.
            TestOutcome::Failed { .. } => Some((test.name.as_str(), "**failed**".to_owned())),
        });
        let failure = kernel.failure.iter().map(|failure| ("the machine", failure.clone()));
        for reason in missing.chain(tests).chain(failure) {
            reasons.entry(reason).or_default().push(&kernel.release);
        }
    }
    if reasons.is_empty() {
        return Ok(());
    }
    page.push_str("\n## Exceptions\n\n");
    for ((name, reason), kernels) in reasons {
        writeln!(page, "- {name}, on {}: {reason}", kernels.join(", "))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use super::super::{machine::MachineRun, protocol::GuestMessage};

    fn tested(release: &str, fentry: bool) -> TestedKernel {
        let check = |name: &str, found, detail: &str| GuestMessage::Check {
            name: name.to_owned(),
            found,
            detail: detail.to_owned(),
        };
        let messages = vec![
            GuestMessage::Booted {
                release: release.to_owned(),
                version: "#1 SMP Debian 1.2.3-4 (date)".to_owned(),
            },
            check("kernel", true, release),
            check("fentry", fentry, "refused"),
            GuestMessage::Done,
        ];
        TestedKernel::new(release.to_owned(), MachineRun { messages, failure: None, took: Duration::ZERO })
    }

    #[test]
    fn page_has_a_column_per_kernel_and_reasons() {
        let page = page(&[tested("5.10", false), tested("6.1", true), tested("6.12", false)]).unwrap();
        for part in [
            "|  | `5.10` | `6.1` | `6.12` |\n| --- | --- | --- | --- |\n| build | 1.2.3-4 | 1.2.3-4 | 1.2.3-4 |\n",
            "| fentry | **no** | yes | **no** |",
            "- fentry, on 5.10, 6.12: missing: refused\n",
        ] {
            assert!(page.contains(part), "{part} not in:\n{page}");
        }
        assert!(!page.contains("| kernel |"));
    }

    #[test]
    fn build_is_the_package_version() {
        assert_eq!(build("#1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1 (2026-05-01)"), "6.12.107-1");
        assert_eq!(build("#1 SMP custom"), "#1 SMP custom");
    }
}
