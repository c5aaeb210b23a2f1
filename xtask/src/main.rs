//! `cargo xtask`: what cargo alone cannot do in this workspace. One file per subcommand.

mod bench;
mod dist;
mod ebpf;
mod packages;
mod process;
mod scale;
mod test;
mod vm;
mod workspace;

use clap::{Parser, Subcommand};

/// What cargo alone cannot do in this workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::Arguments),
    Dist(dist::Arguments),
    Ebpf(ebpf::Arguments),
    Scale(scale::Arguments),
    Test(test::Arguments),
    Vm(vm::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Dist(arguments) => dist::run(&arguments),
        Command::Ebpf(arguments) => ebpf::run(&arguments),
        Command::Scale(arguments) => scale::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Vm(arguments) => vm::run(&arguments),
    }
}
