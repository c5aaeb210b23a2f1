//! `cargo xtask vm`: runs the program and the kernel tests on several kernels.
//!
//! Boots Debian's kernels in qemu, each with an initramfs that holds everything. This requires neither KVM
//! nor root. The guest's init process is `src/bin/vm-init`.

mod compatibility;
mod cpio;
mod foreign_tools;
mod initramfs;
mod kernel;
mod machine;
mod modules;
mod programs;
mod protocol;
mod results;
mod stored;

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use self::{
    kernel::Series,
    machine::Options,
    programs::GuestBuild,
    results::TestedKernel,
    stored::{Extent, Stored},
};
use crate::{
    apt::{self, Apt},
    architecture::Architecture,
    packages, process,
    workspace::Workspace,
};

/// Required Debian packages, and their use.
const PACKAGES: &[(&str, &str)] = &[
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
    /// Architecture of the machines. Default: this machine's
    #[arg(long, value_name = "ARCHITECTURE")]
    arch: Option<Architecture>,

    /// Kernel series, each in its newest version, such as 5.10,6.12,newest. Default: those in
    /// docs/compatibility.md
    #[arg(long, value_name = "SERIES", value_delimiter = ',', conflicts_with = "oldest_newest")]
    kernel: Vec<Series>,

    /// Test only the oldest and the newest series
    #[arg(long)]
    oldest_newest: bool,

    /// Run only the checks and the smoke test, not the test suites
    #[arg(long)]
    smoke: bool,

    /// Write docs/compatibility.md from the results of this and earlier runs of both architectures, all at the same
    /// commit. With --smoke, write only the features of each kernel and keep the results of the tests
    #[arg(long, conflicts_with = "tests")]
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
    let host = Architecture::host()?;
    let architecture = arguments.arch.unwrap_or(host);
    ensure!(
        !arguments.kvm || architecture == host,
        "KVM runs machines of this machine's architecture, {host}: leave out --kvm or --arch"
    );
    let workspace = Workspace::find()?;
    let folder = workspace.root().join("target/vm");
    let results_folder = folder.join("results");
    let page = workspace.root().join("docs/compatibility.md");
    let write_compatibility = || -> Result<()> {
        let features = Stored::read_all(&results_folder, Extent::Smoke)?;
        let tests =
            (!arguments.smoke).then(|| Stored::read_all(&results_folder, Extent::Complete)).transpose()?;
        compatibility::write(&page, &features, tests.as_ref())
    };
    if arguments.stored {
        return write_compatibility();
    }
    let names = PACKAGES.iter().map(|(name, _)| *name).chain([machine::package(architecture)]);
    packages::ensure(&names.collect::<Vec<_>>())?;
    let apt = Apt::new(&workspace.root().join("target/apt"), architecture, &arguments.mirror)?;
    let build = GuestBuild::new(&workspace, architecture, &arguments.mirror)?;
    let programs = build.programs(!arguments.smoke)?;
    let tools = build.tools(&programs, &apt)?;
    let options = Options { architecture, kvm: arguments.kvm, limit: Duration::from_secs(arguments.limit) };

    let test_options = initramfs::TestOptions {
        filters: arguments.tests.clone(),
        test_limit: arguments.test_limit,
        emulated: !arguments.kvm,
    };

    let commit = commit(&workspace)?;
    let complete = !arguments.smoke && arguments.tests.is_empty();
    let extents = if complete { &[Extent::Smoke, Extent::Complete][..] } else { &[Extent::Smoke] };
    let mut tested = Vec::new();
    for series in series(arguments, architecture) {
        let kernel = kernel::obtain(&apt, architecture, series, &folder.join("kernels"))?;
        let place = folder.join(&kernel.release);
        fs::create_dir_all(&place).with_context(|| format!("could not create {}", place.display()))?;
        let initramfs = place.join("initramfs.cpio");
        initramfs::write(&initramfs, &kernel, &programs, &tools, &test_options)?;
        eprintln!("booting {}", kernel.release);
        let run = machine::run(&kernel, &initramfs, &place, &options)?;
        let stored = Stored::new(&kernel.release, &commit, &programs.tracer, &run)?;
        for extent in extents {
            stored.write(&results_folder, *extent, architecture, series)?;
        }
        let kernel = TestedKernel::new(kernel.release, run);
        kernel.print_problems();
        tested.push(kernel);
    }
    results::print(&tested)?;
    if arguments.write_compatibility {
        write_compatibility()?;
    }
    let failed: Vec<_> =
        tested.iter().filter(|kernel| !kernel.passed()).map(|kernel| kernel.release.as_str()).collect();
    ensure!(failed.is_empty(), "tests failed on {}; the reasons are above", failed.join(", "));
    Ok(())
}

/// Returns the commit of the checkout, marked if it has changes.
fn commit(workspace: &Workspace) -> Result<String> {
    let described = process::probe(Command::new("git").current_dir(workspace.root()).args([
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]))?;
    Ok(described.map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned()))
}

fn series(arguments: &Arguments, architecture: Architecture) -> Vec<Series> {
    let documented = kernel::documented(architecture);
    match arguments {
        Arguments { oldest_newest: true, .. } => {
            let [oldest, .., newest] = kernel::SERIES;
            vec![oldest, newest]
        }
        Arguments { kernel, .. } if kernel.is_empty() => documented.to_vec(),
        Arguments { kernel, .. } => kernel.clone(),
    }
}
