//! Reads the offsets of kernel structure fields from BTF.
//!
//! rustc emits no CO-RE relocations, so the programs get their offsets from this module. The format is described in the
//! kernel's `Documentation/bpf/btf.rst`. Invalid input leads to an error, never to a panic.

use std::fmt;

use tracer_ebpf::BitField;

/// The kernel's own BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
/// Maximum nesting of types. Deeper than any kernel structure; ends cycles in an invalid file.
const MAX_DEPTH: u32 = 24;

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
    /// The newest kind whose length is known.
    pub(super) const LAST: u32 = ENUM64;
}

/// Why BTF could not be parsed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// It does not start with the BTF magic number.
    #[error("it is not BTF in this machine's byte order")]
    NotBtf,
    /// It is truncated, or an offset is outside of it.
    #[error("it is damaged or truncated at byte {0}")]
    Damaged(usize),
    /// It has a type of an unknown kind.
    #[error("it has a type of the unknown kind {0}")]
    UnknownKind(u32),
}

/// Parsed BTF: the bytes, and the offset of each type.
pub struct Btf {
    bytes: Vec<u8>,
    /// Offset of each type's header; type ids start at 1.
    types: Vec<u32>,
    strings: std::ops::Range<usize>,
}

impl fmt::Debug for Btf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Btf").field("types", &self.types.len()).finish_non_exhaustive()
    }
}

/// A member of a structure or union.
#[derive(Clone, Copy)]
struct Member {
    /// Where it starts, bits from the start of the structure.
    bit: u32,
    /// Its type's id.
    target: u32,
    /// Bits of a bit-field; 0 for other members.
    width: u32,
}

/// The decoded header of a type.
#[derive(Clone, Copy)]
struct Header {
    name: u32,
    kind: u32,
    members: u32,
    /// The top byte of each member offset is a bit-field size.
    has_bit_fields: bool,
    /// The referenced type, for typedefs and qualifiers; the size in bytes for numbers and structures.
    target: u32,
    /// The offset of the data after the header.
    body: usize,
}

impl Btf {
    /// Parses BTF, such as the content of [`VMLINUX`].
    ///
    /// # Errors
    ///
    /// When the bytes are not BTF, are damaged, or have a type of an unknown kind.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BtfError> {
        let half =
            |at: usize| -> Option<u16> { Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?)) };
        if half(0) != Some(MAGIC) {
            return Err(BtfError::NotBtf);
        }
        let header = |at: usize| word(&bytes, at).map(|value| value as usize).ok_or(BtfError::Damaged(at));
        let (length, type_offset, type_length) = (header(4)?, header(8)?, header(12)?);
        let (string_offset, string_length) = (header(16)?, header(20)?);
        let section = |offset: usize, size: usize| {
            let start = length.checked_add(offset)?;
            let end = start.checked_add(size)?;
            (end <= bytes.len()).then_some(start..end)
        };
        let type_section = section(type_offset, type_length).ok_or(BtfError::Damaged(8))?;
        let strings = section(string_offset, string_length).ok_or(BtfError::Damaged(16))?;

        let mut types = Vec::with_capacity(type_section.len() / 24);
        let mut at = type_section.start;
        while at < type_section.end {
            let header = read_header(&bytes, at).ok_or(BtfError::Damaged(at))?;
            types.push(u32::try_from(at).map_err(|_| BtfError::Damaged(at))?);
            at = header.body + body_length(header)?;
        }
        if at != type_section.end {
            return Err(BtfError::Damaged(at));
        }
        Ok(Self { bytes, types, strings })
    }

    /// Returns the byte offset of `path` in the structure `structure`; `None` if either does not exist, or if the field
    /// does not start at a byte.
    ///
    /// `path` joins member names with dots. A name is also searched in anonymous members, and then in the first member
    /// of the structure: `sk_err` is found in `tcp_sock`.
    pub fn offset_of(&self, structure: &str, path: &str) -> Option<u32> {
        self.offset_in(self.structure(structure)?, path)
    }

    /// Returns the offset like [`offset_of`](Self::offset_of), for an id from [`structure`](Self::structure).
    pub fn offset_in(&self, id: u32, path: &str) -> Option<u32> {
        let member = self.member_at(id, path)?;
        (member.width == 0 && member.bit.is_multiple_of(8)).then_some(member.bit / 8)
    }

    /// Returns the byte and the bits of `path` in a structure: a bit-field, or a number of one byte. `None` when it does not exist
    /// or is not within one byte.
    pub fn bit_field_in(&self, id: u32, path: &str) -> Option<BitField> {
        let member = self.member_at(id, path)?;
        let width = match member.width {
            0 => {
                let (_, number) = self.resolve(member.target)?;
                (number.kind == kind::INT && number.target == 1).then_some(8)?
            }
            width => width,
        };
        let (offset, first) = (member.bit / 8, member.bit % 8);
        (first + width <= 8).then(|| BitField { offset, mask: (0xff >> (8 - width)) << first })
    }

    /// Returns the value of an enumerator of at most 32 bits. Searches all types.
    pub fn enumerator(&self, name: &str) -> Option<u32> {
        let enumerations = self.types.iter().filter_map(|&at| {
            let header = read_header(&self.bytes, at as usize)?;
            (header.kind == kind::ENUM).then_some(header)
        });
        let mut enumerators = enumerations
            .flat_map(|header| (0..header.members as usize).map(move |index| header.body + index * 8));
        let at = enumerators
            .find(|&at| word(&self.bytes, at).and_then(|name| self.string(name)) == Some(name.as_bytes()))?;
        word(&self.bytes, at + 4)
    }

    /// Returns the values and names of the enumerators of an enumeration, of at most 32 bits each; none if it does not exist.
    pub fn enumerators(&self, name: &str) -> Vec<(u32, &[u8])> {
        let header = self.find(kind::ENUM, name).and_then(|id| self.header(id));
        let Some(header) = header else { return Vec::new() };
        (0..header.members as usize)
            .filter_map(|index| {
                let at = header.body + index * 8;
                Some((word(&self.bytes, at + 4)?, self.string(word(&self.bytes, at)?)?))
            })
            .collect()
    }

    /// Returns the number of arguments of a kernel function; `None` if it does not exist.
    pub fn function_arguments(&self, name: &str) -> Option<u32> {
        let function = self.header(self.find(kind::FUNC, name)?)?;
        self.prototype_arguments(function.target)
    }

    /// Returns the number of arguments of a tracepoint; `None` if it does not exist. The type of its programs' function also
    /// has the kernel's own data as first argument, which does not count.
    pub fn tracepoint_arguments(&self, name: &str) -> Option<u32> {
        let (_, pointer) = self.resolve(self.find(kind::TYPEDEF, &format!("btf_trace_{name}"))?)?;
        (pointer.kind == kind::PTR).then_some(())?;
        self.prototype_arguments(pointer.target)?.checked_sub(1)
    }

    fn prototype_arguments(&self, id: u32) -> Option<u32> {
        let prototype = self.header(id)?;
        (prototype.kind == kind::FUNC_PROTO).then_some(prototype.members)
    }

    /// Returns the member at `path`.
    fn member_at(&self, mut id: u32, path: &str) -> Option<Member> {
        let (mut bit, mut width) = (0_u32, 0);
        for name in path.split('.') {
            let member = self.member(id, name, 0)?;
            bit = bit.checked_add(member.bit)?;
            (id, width) = (member.target, member.width);
        }
        Some(Member { bit, target: id, width })
    }

    /// Returns the type id of the structure with this name. Searches all types, so cache the result.
    pub fn structure(&self, name: &str) -> Option<u32> {
        self.find(kind::STRUCT, name)
    }

    fn find(&self, wanted: u32, name: &str) -> Option<u32> {
        (1..=u32::try_from(self.types.len()).ok()?).find(|&id| {
            self.header(id).is_some_and(|header| {
                header.kind == wanted && self.string(header.name) == Some(name.as_bytes())
            })
        })
    }

    fn header(&self, id: u32) -> Option<Header> {
        let at = *self.types.get((id as usize).checked_sub(1)?)?;
        read_header(&self.bytes, at as usize)
    }

    fn string(&self, offset: u32) -> Option<&[u8]> {
        let text = self.bytes.get(self.strings.clone())?.get(offset as usize..)?;
        text.split(|&byte| byte == 0).next()
    }

    /// Follows typedefs and qualifiers to the underlying type.
    fn resolve(&self, mut id: u32) -> Option<(u32, Header)> {
        for _ in 0..MAX_DEPTH {
            let header = self.header(id)?;
            match header.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = header.target;
                }
                _ => return Some((id, header)),
            }
        }
        None
    }

    /// Returns a member of the structure or union `id`.
    fn member(&self, id: u32, name: &str, depth: u32) -> Option<Member> {
        if depth > MAX_DEPTH {
            return None;
        }
        let (_, header) = self.resolve(id)?;
        if header.kind != kind::STRUCT && header.kind != kind::UNION {
            return None;
        }
        let members = (0..header.members as usize).filter_map(|index| {
            let at = header.body + index * 12;
            let offset = word(&self.bytes, at + 8)?;
            let (bit, width) =
                if header.has_bit_fields { (offset & 0x00ff_ffff, offset >> 24) } else { (offset, 0) };
            let member = Member { bit, target: word(&self.bytes, at + 4)?, width };
            Some((self.string(word(&self.bytes, at)?)?, member))
        });
        let mut first = None;
        for (index, (found, member)) in members.enumerate() {
            if found == name.as_bytes() {
                return Some(member);
            }
            if found.is_empty()
                && let Some(inner) = self.member(member.target, name, depth + 1)
            {
                return Some(Member { bit: member.bit.checked_add(inner.bit)?, ..inner });
            }
            if index == 0 && member.bit == 0 && !found.is_empty() {
                first = Some(member.target);
            }
        }
        // Kernel structures embed their base structure as the first member.
        self.member(first?, name, depth + 1)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn read_header(bytes: &[u8], at: usize) -> Option<Header> {
    let info = word(bytes, at + 4)?;
    Some(Header {
        name: word(bytes, at)?,
        kind: (info >> 24) & 0x1f,
        members: info & 0xffff,
        has_bit_fields: info >> 31 != 0,
        target: word(bytes, at + 8)?,
        body: at + 12,
    })
}

fn body_length(header: Header) -> Result<usize, BtfError> {
    let each = match header.kind {
        kind::INT | kind::VAR | kind::DECL_TAG => return Ok(4),
        kind::ARRAY => return Ok(12),
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12,
        kind::ENUM | kind::FUNC_PROTO => 8,
        unknown if unknown > kind::LAST || unknown == 0 => return Err(BtfError::UnknownKind(unknown)),
        _ => 0,
    };
    Ok(header.members as usize * each)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Encodes BTF independently of the parser.
    #[derive(Default)]
    struct Builder {
        types: Vec<u8>,
        strings: Vec<u8>,
        count: u32,
    }

    impl Builder {
        fn new() -> Self {
            Self { strings: vec![0], ..Self::default() }
        }

        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = u32::try_from(self.strings.len()).unwrap();
            self.strings.extend(name.as_bytes());
            self.strings.push(0);
            at
        }

        fn words(&mut self, words: &[u32]) {
            for word in words {
                self.types.extend(word.to_ne_bytes());
            }
        }

        fn int(&mut self, name: &str) -> u32 {
            self.number(name, 4)
        }

        fn number(&mut self, name: &str, size: u32) -> u32 {
            let name = self.name(name);
            self.words(&[name, kind::INT << 24, size, size * 8]);
            self.count += 1;
            self.count
        }

        fn enumeration(&mut self, enumerators: &[(&str, u32)]) {
            self.words(&[0, kind::ENUM << 24 | u32::try_from(enumerators.len()).unwrap(), 4]);
            for (name, value) in enumerators {
                let name = self.name(name);
                self.words(&[name, *value]);
            }
            self.count += 1;
        }

        fn structure(&mut self, kind: u32, name: &str, members: &[(&str, u32, u32)]) -> u32 {
            let name = self.name(name);
            let bit_fields = members.iter().any(|(_, _, offset)| offset >> 24 != 0);
            let info = u32::from(bit_fields) << 31 | kind << 24 | u32::try_from(members.len()).unwrap();
            self.words(&[name, info, 64]);
            for (member, member_type, offset) in members {
                let member = self.name(member);
                self.words(&[member, *member_type, *offset]);
            }
            self.count += 1;
            self.count
        }

        fn build(self) -> Vec<u8> {
            let mut bytes = Vec::new();
            bytes.extend(MAGIC.to_ne_bytes());
            bytes.extend([1, 0]);
            let types = u32::try_from(self.types.len()).unwrap();
            let strings = u32::try_from(self.strings.len()).unwrap();
            for word in [24, 0, types, types, strings] {
                bytes.extend(word.to_ne_bytes());
            }
            bytes.extend(self.types);
            bytes.extend(self.strings);
            bytes
        }
    }

    fn sample() -> Vec<u8> {
        let mut builder = Builder::new();
        let int = builder.int("int");
        let anonymous = builder.structure(kind::UNION, "", &[("deep", int, 0), ("other", int, 0)]);
        let parent = builder.structure(kind::STRUCT, "parent", &[("head", int, 0), ("", anonymous, 64)]);
        let queue = builder.structure(kind::STRUCT, "queue", &[("length", int, 32)]);
        builder.structure(
            kind::STRUCT,
            "child",
            &[("base", parent, 0), ("own", int, 128), ("queue", queue, 192)],
        );
        builder.build()
    }

    #[test]
    fn own_nested_anonymous_and_inherited_members_are_found() {
        let btf = Btf::parse(sample()).unwrap();
        assert_eq!(btf.offset_of("child", "own"), Some(16));
        assert_eq!(btf.offset_of("child", "queue.length"), Some(28));
        assert_eq!(btf.offset_of("child", "deep"), Some(8));
        assert_eq!(btf.offset_of("child", "head"), Some(0));
        assert_eq!(btf.offset_of("child", "absent"), None);
        assert_eq!(btf.offset_of("absent", "own"), None);
        assert_eq!(btf.offset_of("child", "own.deeper"), None);
    }

    /// A bit-field as the type section has it: its width, and the bit at which it starts.
    const fn bits(width: u32, bit: u32) -> u32 {
        width << 24 | bit
    }

    fn sample_with_bits() -> Vec<u8> {
        let mut builder = Builder::new();
        let (byte, int) = (builder.number("u8", 1), builder.int("int"));
        let inner =
            builder.structure(kind::STRUCT, "", &[("low", byte, bits(1, 0)), ("high", byte, bits(3, 5))]);
        let parent = builder.structure(
            kind::STRUCT,
            "parent",
            &[("word", int, 0), ("lone", byte, bits(1, 44)), ("across", int, bits(4, 54)), ("", inner, 72)],
        );
        builder.enumeration(&[("FIRST", 0), ("OTHER", 7)]);
        builder.enumeration(&[("SECOND", 19)]);
        builder.structure(
            kind::STRUCT,
            "child",
            &[("base", parent, 0), ("byte", byte, 96), ("own", int, 128)],
        );
        builder.build()
    }

    #[test]
    fn bit_fields_are_a_byte_and_a_mask() {
        let btf = Btf::parse(sample_with_bits()).unwrap();
        let field = |path| btf.bit_field_in(btf.structure("child").unwrap(), path);
        assert_eq!(field("lone"), Some(BitField { offset: 5, mask: 0x10 }), "of the parent");
        assert_eq!(field("low"), Some(BitField { offset: 9, mask: 0x01 }), "of an anonymous member");
        assert_eq!(field("high"), Some(BitField { offset: 9, mask: 0xe0 }));
        assert_eq!(field("byte"), Some(BitField { offset: 12, mask: 0xff }), "a whole byte");
        assert_eq!(field("across"), None, "in two bytes");
        assert_eq!(field("own"), None, "four bytes");
        assert_eq!(field("base"), None, "a structure");
        assert_eq!(field("absent"), None);
        assert_eq!(btf.offset_of("child", "lone"), None, "no byte of its own");
        assert_eq!(btf.offset_of("child", "low"), None, "not even where it starts at a byte");
        assert_eq!(btf.offset_of("child", "byte"), Some(12));
    }

    #[test]
    fn enumerators_have_values() {
        let btf = Btf::parse(sample_with_bits()).unwrap();
        assert_eq!(btf.enumerator("FIRST"), Some(0));
        assert_eq!(btf.enumerator("OTHER"), Some(7));
        assert_eq!(btf.enumerator("SECOND"), Some(19));
        assert_eq!(btf.enumerator("child"), None);
    }

    #[test]
    fn errors_name_the_cause() {
        assert_eq!(Btf::parse(Vec::new()).unwrap_err(), BtfError::NotBtf);
        assert_eq!(Btf::parse(b"\x7fELF".to_vec()).unwrap_err(), BtfError::NotBtf);
        let mut unknown = sample();
        unknown[24 + 7] = 31;
        assert_eq!(Btf::parse(unknown).unwrap_err(), BtfError::UnknownKind(31));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = sample();
        for length in 0..whole.len() {
            assert!(Btf::parse(whole[..length].to_vec()).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn the_btf_of_this_kernel_parses() {
        let btf = Btf::parse(std::fs::read(VMLINUX).unwrap()).unwrap();
        // These offsets have been stable for ten years.
        assert_eq!(btf.offset_of("tcp_sock", "skc_daddr"), Some(0));
        assert_eq!(btf.offset_of("tcp_sock", "skc_family"), Some(16));
        assert!(btf.offset_of("tcp_sock", "srtt_us").unwrap() > btf.offset_of("tcp_sock", "sk_err").unwrap());
    }

    proptest! {
        #[test]
        fn damage_never_panics(position in 0usize..400, value: u8, cut in 0usize..400, with_bits: bool) {
            let mut bytes = if with_bits { sample_with_bits() } else { sample() };
            let length = bytes.len();
            bytes[position % length] = value;
            bytes.truncate(cut.max(1).min(length));
            if let Ok(btf) = Btf::parse(bytes) {
                let _ = btf.offset_of("child", "queue.length");
                let _ = btf.offset_of("child", "deep");
                let _ = btf.enumerator("SECOND");
                for path in ["lone", "low", "across", "byte"] {
                    let field = btf.structure("child").and_then(|child| btf.bit_field_in(child, path));
                    prop_assert!(field.is_none_or(|field| (1..=0xff).contains(&field.mask)));
                }
            }
        }
    }
}
