//! `cargo xtask`: the workspace's build, test and release tasks. One file per subcommand.

mod apt;
mod architecture;
mod bench;
mod cross;
mod dist;
mod ebpf;
mod packages;
mod process;
mod test;
mod tools;
mod vm;
mod workspace;

use clap::{Parser, Subcommand};

/// Builds the eBPF object, runs the kernel tests and benchmarks, and packs releases.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Bench(bench::Arguments),
    Dist(dist::Arguments),
    Ebpf(ebpf::Arguments),
    Test(test::Arguments),
    Vm(vm::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Dist(arguments) => dist::run(&arguments),
        Task::Ebpf(arguments) => ebpf::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Vm(arguments) => vm::run(&arguments),
    }
}
