//! Checks that a program is static and for the right architecture.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use object::{
    Endianness,
    elf::{EM_AARCH64, EM_X86_64, ET_DYN, FileHeader64, PT_INTERP},
    read::elf::{FileHeader as _, ProgramHeader as _},
};

use crate::architecture::Architecture;

/// Checks a program: its machine, that it needs no loader, and that the kernel can place it at a random address.
pub(super) fn check(program: &Path, architecture: Architecture) -> Result<()> {
    let bytes = fs::read(program).with_context(|| format!("could not read {}", program.display()))?;
    let header = FileHeader64::<Endianness>::parse(&*bytes)
        .with_context(|| format!("{} is not an ELF program", program.display()))?;
    let endian = header.endian()?;
    let expected = match architecture {
        Architecture::X86_64 => EM_X86_64,
        Architecture::Aarch64 => EM_AARCH64,
    };
    ensure!(header.e_machine(endian) == expected, "{} is not for {architecture}", program.display());
    ensure!(header.e_type(endian) == ET_DYN, "{} is not position independent", program.display());
    let segments = header.program_headers(endian, &*bytes)?;
    ensure!(
        segments.iter().all(|segment| segment.p_type(endian) != PT_INTERP),
        "{} needs a loader, so it is not static",
        program.display()
    );
    Ok(())
}
