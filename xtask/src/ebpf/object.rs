//! Strips debug information from the ELF object.

use anyhow::{Context as _, Result, ensure};
use object::{
    build::elf::{Builder, Section, SectionData},
    elf::{SHT_REL, SHT_STRTAB},
};

/// Sections that a loader requires; a missing one means that the linker was called with wrong arguments.
const REQUIRED: &[&str] = &[".BTF", ".BTF.ext", ".maps", ".rodata", "license"];

/// Removes DWARF and keeps BTF, code, maps, relocations and symbols.
///
/// The linker generates BTF from DWARF, so DWARF cannot be omitted earlier. `llvm-strip` is not used, so that
/// the bytes do not depend on its version.
///
/// # Errors
/// If the bytes are not an ELF object, or a required section is missing.
pub(crate) fn strip_dwarf(linked: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(linked).context("the linker's output is not a valid ELF object")?;
    let dwarf: Vec<_> =
        builder.sections.iter().filter(|section| is_dwarf(&section.name)).map(Section::id).collect();
    for section in &mut builder.sections {
        // Removes a relocation section with the section it applies to.
        let applies_to_dwarf = section.sh_type == SHT_REL
            && section.sh_info_section.is_some_and(|target| dwarf.contains(&target));
        section.delete = applies_to_dwarf || dwarf.contains(&section.id());
    }
    for name in REQUIRED {
        ensure!(
            builder.sections.iter().any(|section| section.name.as_slice() == name.as_bytes()),
            "the linked object has no section {name}: does this bpf-linker support --btf?"
        );
    }
    // LLVM stores section names and symbol names in one section; the writer requires two.
    if !builder.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        let names = builder.sections.add();
        names.name = b".shstrtab"[..].into();
        names.sh_type = SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("the stripped object could not be written")?;
    Ok(stripped)
}

fn is_dwarf(section_name: &[u8]) -> bool {
    section_name.starts_with(b".debug_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dwarf_sections_are_removed() {
        for name in [&b".debug_info"[..], b".debug_line_str", b".debug_loclists"] {
            assert!(is_dwarf(name));
        }
        for name in [&b".BTF"[..], b".BTF.ext", b".rel.BTF", b".maps", b".rodata", b"license", b".strtab"] {
            assert!(!is_dwarf(name));
        }
    }

    #[test]
    fn non_elf_input_is_an_error() {
        for bytes in [&b""[..], b"\x7fELF", b"not an object"] {
            assert!(strip_dwarf(bytes).is_err());
        }
    }
}
