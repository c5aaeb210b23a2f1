//! `cargo xtask vm`: the real program and the tests of the real kernel, on the kernels that people have.
//!
//! Each of Debian's kernels is booted in qemu with an initramfs that holds everything; it needs neither KVM
//! nor root. The first process of the guest is `src/bin/vm-init`.

mod apt;
mod compatibility;
mod cpio;
mod initramfs;
mod kernel;
mod machine;
mod modules;
mod outcome;
mod programs;
mod protocol;
mod stored;

use std::{env, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use self::{apt::Apt, kernel::Series, machine::Options, outcome::Tested, stored::Stored};
use crate::{packages, workspace::Workspace};

/// The Debian packages whose programs are used, and what for.
const PACKAGES: &[(&str, &str)] = &[
    ("qemu-system-x86", "emulates the machine"),
    ("binutils", "strips what goes into the guest"),
    ("xz-utils", "unpacks modules"),
    ("zstd", "unpacks modules"),
    ("iproute2", "ip and ss, which the tests start in the guest"),
    ("nftables", "nft, which the tests start in the guest"),
    ("curl", "started by tests in the guest"),
    ("openssl", "started by tests in the guest"),
];

/// Boots Debian's kernels in virtual machines and tests the real program in each.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Kernel series, each in its newest version: such as 5.10,6.12,newest. All by default
    #[arg(long, value_name = "SERIES", value_delimiter = ',', conflicts_with = "oldest_newest")]
    kernel: Vec<Series>,

    /// Only the oldest and the newest series
    #[arg(long)]
    oldest_newest: bool,

    /// Only the checks and the smoke test, not the suites
    #[arg(long)]
    smoke: bool,

    /// Write docs/compatibility.md from what was found, now or the last time; every series must have been
    /// tested with the same program
    #[arg(long, conflicts_with_all = ["smoke", "tests"])]
    write_compatibility: bool,

    /// Boot nothing, and take what was found the last time
    #[arg(long, requires = "write_compatibility", conflicts_with_all = ["kernel", "oldest_newest"])]
    stored: bool,

    /// Use KVM, where /dev/kvm works; otherwise the processor is emulated
    #[arg(long)]
    kvm: bool,

    /// Seconds after which a machine is switched off
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    limit: u64,

    /// Only tests whose name has one of these parts, besides the checks and the smoke test
    #[arg(long = "test", value_name = "PART", value_delimiter = ',', conflicts_with = "smoke")]
    tests: Vec<String>,

    /// Seconds without any test's end after which a suite in the guest is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    test_limit: u64,

    #[command(flatten)]
    mirror: apt::Mirror,
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        env::consts::ARCH == "x86_64",
        "the machines are x86_64 and run programs built here, which is not"
    );
    let workspace = Workspace::find()?;
    let folder = workspace.root().join("target/vm");
    let outcomes = folder.join("outcomes");
    let page = workspace.root().join("docs/compatibility.md");
    if arguments.stored {
        return compatibility::write(&page, &Stored::read_all(&outcomes)?);
    }
    let names: Vec<&str> = PACKAGES.iter().map(|(name, _)| *name).collect();
    packages::ensure(&names)?;
    let apt = Apt::new(folder.join("apt"), &arguments.mirror)?;
    let programs = programs::build(&workspace, !arguments.smoke)?;
    let tools = programs::tools(&programs)?;
    let options = Options { kvm: arguments.kvm, limit: Duration::from_secs(arguments.limit) };

    let wanted = initramfs::Wanted {
        filters: arguments.tests.clone(),
        test_limit: arguments.test_limit,
        emulated: !arguments.kvm,
    };

    let whole = !arguments.smoke && arguments.tests.is_empty();
    let mut tested = Vec::new();
    for series in series(arguments) {
        let kernel = kernel::obtain(&apt, series, &folder.join("kernels"))?;
        let place = folder.join(&kernel.release);
        fs::create_dir_all(&place).with_context(|| format!("could not create {}", place.display()))?;
        let initramfs = place.join("initramfs.cpio");
        initramfs::write(&initramfs, &kernel, &programs, &tools, &wanted)?;
        eprintln!("booting {}", kernel.release);
        let run = machine::run(&kernel, &initramfs, &place, &options)?;
        if whole {
            Stored::new(&kernel.release, &programs.tracer, &run)?.write(&outcomes, series)?;
        }
        let one = Tested::new(kernel.release, run);
        one.explain();
        tested.push(one);
    }
    outcome::print(&tested)?;
    if arguments.write_compatibility {
        compatibility::write(&page, &Stored::read_all(&outcomes)?)?;
    }
    let failed: Vec<_> = tested.iter().filter(|one| !one.passed()).map(|one| one.release.as_str()).collect();
    ensure!(failed.is_empty(), "not everything passed on {}; the reasons are above", failed.join(", "));
    Ok(())
}

fn series(arguments: &Arguments) -> Vec<Series> {
    let [oldest, .., newest] = kernel::SERIES;
    match arguments {
        Arguments { oldest_newest: true, .. } => vec![oldest, newest],
        Arguments { kernel, .. } if kernel.is_empty() => kernel::SERIES.to_vec(),
        Arguments { kernel, .. } => kernel.clone(),
    }
}
