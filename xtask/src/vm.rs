//! `cargo xtask vm`: runs the program and the kernel tests on several kernels.
//!
//! Boots Debian's kernels in qemu, each with an initramfs that holds everything. This requires neither KVM
//! nor root. The guest's init process is `src/bin/vm-init`.

mod apt;
mod compatibility;
mod cpio;
mod initramfs;
mod kernel;
mod machine;
mod modules;
mod programs;
mod protocol;
mod results;
mod stored;

use std::{env, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use self::{apt::Apt, kernel::Series, machine::Options, results::TestedKernel, stored::Stored};
use crate::{packages, workspace::Workspace};

/// Required Debian packages, and their use.
const PACKAGES: &[(&str, &str)] = &[
    ("qemu-system-x86", "emulates the machine"),
    ("binutils", "strips the programs for the guest"),
    ("xz-utils", "unpacks modules"),
    ("zstd", "unpacks modules"),
    ("iproute2", "ip and ss, used by tests in the guest"),
    ("nftables", "nft, used by tests in the guest"),
    ("curl", "used by tests in the guest"),
    ("openssl", "used by tests in the guest"),
];

/// Boots Debian's kernels in virtual machines and tests the program on each
#[derive(Args)]
pub(crate) struct Arguments {
    /// Kernel series, each in its newest version, such as 5.10,6.12,newest. Default: all
    #[arg(long, value_name = "SERIES", value_delimiter = ',', conflicts_with = "oldest_newest")]
    kernel: Vec<Series>,

    /// Test only the oldest and the newest series
    #[arg(long)]
    oldest_newest: bool,

    /// Run only the checks and the smoke test, not the test suites
    #[arg(long)]
    smoke: bool,

    /// Write docs/compatibility.md from the results of this and earlier runs. Every series must have been
    /// tested with the same program
    #[arg(long, conflicts_with_all = ["smoke", "tests"])]
    write_compatibility: bool,

    /// Boot nothing, and use the stored results
    #[arg(long, requires = "write_compatibility", conflicts_with_all = ["kernel", "oldest_newest"])]
    stored: bool,

    /// Use KVM instead of emulating the processor; requires /dev/kvm
    #[arg(long)]
    kvm: bool,

    /// Seconds after which a machine is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    limit: u64,

    /// Run only tests whose names contain one of these parts, besides the checks and the smoke test
    #[arg(long = "test", value_name = "PART", value_delimiter = ',', conflicts_with = "smoke")]
    tests: Vec<String>,

    /// Seconds without a finished test after which a suite in the guest is killed
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    test_limit: u64,

    #[command(flatten)]
    mirror: apt::Mirror,
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        env::consts::ARCH == "x86_64",
        "the virtual machines run programs built on this host, which is not x86_64"
    );
    let workspace = Workspace::find()?;
    let folder = workspace.root().join("target/vm");
    let results_folder = folder.join("results");
    let page = workspace.root().join("docs/compatibility.md");
    if arguments.stored {
        return compatibility::write(&page, &Stored::read_all(&results_folder)?);
    }
    let names: Vec<&str> = PACKAGES.iter().map(|(name, _)| *name).collect();
    packages::ensure(&names)?;
    let apt = Apt::new(folder.join("apt"), &arguments.mirror)?;
    let programs = programs::build(&workspace, !arguments.smoke)?;
    let tools = programs::tools(&programs)?;
    let options = Options { kvm: arguments.kvm, limit: Duration::from_secs(arguments.limit) };

    let test_options = initramfs::TestOptions {
        filters: arguments.tests.clone(),
        test_limit: arguments.test_limit,
        emulated: !arguments.kvm,
    };

    let complete = !arguments.smoke && arguments.tests.is_empty();
    let mut tested = Vec::new();
    for series in series(arguments) {
        let kernel = kernel::obtain(&apt, series, &folder.join("kernels"))?;
        let place = folder.join(&kernel.release);
        fs::create_dir_all(&place).with_context(|| format!("could not create {}", place.display()))?;
        let initramfs = place.join("initramfs.cpio");
        initramfs::write(&initramfs, &kernel, &programs, &tools, &test_options)?;
        eprintln!("booting {}", kernel.release);
        let run = machine::run(&kernel, &initramfs, &place, &options)?;
        if complete {
            Stored::new(&kernel.release, &programs.tracer, &run)?.write(&results_folder, series)?;
        }
        let kernel = TestedKernel::new(kernel.release, run);
        kernel.print_problems();
        tested.push(kernel);
    }
    results::print(&tested)?;
    if arguments.write_compatibility {
        compatibility::write(&page, &Stored::read_all(&results_folder)?)?;
    }
    let failed: Vec<_> =
        tested.iter().filter(|kernel| !kernel.passed()).map(|kernel| kernel.release.as_str()).collect();
    ensure!(failed.is_empty(), "tests failed on {}; the reasons are above", failed.join(", "));
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
