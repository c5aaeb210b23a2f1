//! `docs/compatibility.md`: which kernels the program was run on, and what each allows.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use super::{
    outcome::{Tested, own},
    protocol::Outcome,
};

const HEAD: &str = "\
<!-- Written by `cargo xtask vm --write-compatibility`; do not edit. -->
# Kernels

`cargo xtask vm` boots each of these kernels of Debian in a virtual machine and runs the program
there: what `tcptrace-bpf doctor` finds, and whether the tests of the real kernel pass. What a kernel can do is
tried when the program starts, never concluded from a version, so kernels in between and those of other
distributions are handled alike; ask yours with `tcptrace-bpf doctor`.

The processor is emulated there. For the scenarios that means fewer connections, longer limits, and wider
tolerances where a shown duration is compared with a measured one: 20 ms or 5 % instead of 2 ms or 2 %, and
20 or 30 ms instead of 2 or 3 beyond the bounds of a client's round-trip sample and of a SYN cookie's time. Four
tests run at a time; one that fails is run again with the machine for itself, and if it passes then, it is counted as
passed and named below.
";

/// The test program with the scenarios.
const SCENARIOS: &str = "scenarios";

/// Writes the page.
pub(crate) fn write(path: &Path, tested: &[Tested]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
    }
    fs::write(path, page(tested)?).with_context(|| format!("could not write {}", path.display()))
}

fn page(tested: &[Tested]) -> Result<String> {
    let mut page = HEAD.to_owned();
    page += "\n## What each kernel allows\n\n";
    row(&mut page, "", tested.iter().map(|one| format!("`{}`", one.release)))?;
    row(&mut page, "---", tested.iter().map(|_| "---".to_owned()))?;
    row(&mut page, "build", tested.iter().map(|one| build(&one.version)))?;
    for name in features(tested) {
        let cells = tested.iter().map(|one| match one.check(name) {
            Some(check) if check.found => "yes".to_owned(),
            Some(_) => "**no**".to_owned(),
            None => "unknown".to_owned(),
        });
        row(&mut page, name, cells)?;
    }
    row(&mut page, "checks of the program, both modes", tested.iter().map(|one| one.count(own).to_string()))?;
    row(
        &mut page,
        "tests of the tracer",
        tested.iter().map(|one| one.count(|test| !own(test) && test.suite != SCENARIOS).to_string()),
    )?;
    row(
        &mut page,
        "scenarios",
        tested.iter().map(|one| one.count(|test| test.suite == SCENARIOS).to_string()),
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

/// The package's version in `uname -v`, such as 6.12.107-1 in `#1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1 (2026-05-01)`.
fn build(version: &str) -> String {
    let mut words = version.split_whitespace().skip_while(|word| *word != "Debian");
    words.nth(1).unwrap_or(version).to_owned()
}

/// Everything that any kernel was asked for, in the order in which it was; the first line names the kernel.
fn features(tested: &[Tested]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for check in tested.iter().flat_map(|one| &one.checks) {
        if check.name != "kernel" && !names.contains(&check.name.as_str()) {
            names.push(&check.name);
        }
    }
    names
}

/// Why something is missing, not possible or failed, and on which kernels.
fn reasons(page: &mut String, tested: &[Tested]) -> Result<()> {
    let mut reasons: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
    for one in tested {
        let missing = one.checks.iter().filter(|check| !check.found);
        let missing = missing.map(|check| (check.name.as_str(), format!("missing: {}", check.detail)));
        let tests = one.tests.iter().filter_map(|test| match &test.outcome {
            Outcome::Passed => None,
            Outcome::PassedAlone { .. } => Some((test.name.as_str(), "passed only alone".to_owned())),
            Outcome::NotPossible { reason } => Some((test.name.as_str(), format!("not possible: {reason}"))),
            // Its complaint is for who repairs it.
            Outcome::Failed { .. } => Some((test.name.as_str(), "**failed**".to_owned())),
        });
        let trouble = one.trouble.iter().map(|trouble| ("the machine", trouble.clone()));
        for reason in missing.chain(tests).chain(trouble) {
            reasons.entry(reason).or_default().push(&one.release);
        }
    }
    if reasons.is_empty() {
        return Ok(());
    }
    page.push_str("\n## What is missing, and why\n\n");
    for ((name, reason), kernels) in reasons {
        writeln!(page, "- {name}, on {}: {reason}", kernels.join(", "))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use super::super::{machine::Run, protocol::Verdict};

    fn tested(release: &str, fentry: bool) -> Tested {
        let check = |name: &str, found, detail: &str| Verdict::Check {
            name: name.to_owned(),
            found,
            detail: detail.to_owned(),
        };
        let verdicts = vec![
            Verdict::Booted {
                release: release.to_owned(),
                version: "#1 SMP Debian 1.2.3-4 (date)".to_owned(),
            },
            check("kernel", true, release),
            check("fentry", fentry, "refused"),
            Verdict::Done,
        ];
        Tested::new(release.to_owned(), Run { verdicts, trouble: None, took: Duration::ZERO })
    }

    #[test]
    fn a_page_has_a_column_for_each_kernel_and_says_why_something_is_missing() {
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
    fn the_build_is_the_packages_version() {
        assert_eq!(build("#1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1 (2026-05-01)"), "6.12.107-1");
        assert_eq!(build("#1 SMP custom"), "#1 SMP custom");
    }
}
