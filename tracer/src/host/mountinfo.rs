//! Parses `/proc/PID/mountinfo` for cgroup and network namespace mounts.
//!
//! The content is read as bytes, because mount points need not be UTF-8.

use std::{ffi::OsString, io, os::unix::ffi::OsStringExt, path::PathBuf};

use tracer_core::event::Netns;

use crate::host::process::files::number;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The mounted directory of the file system; for nsfs the namespace, such as `net:[4026531840]`.
    pub(super) root: Vec<u8>,
    /// The mount point.
    pub(super) point: PathBuf,
    /// The type of the file system.
    pub(super) file_system: Vec<u8>,
}

/// Returns the mounts that are visible to this process, in mount order.
pub(super) fn own_mounts() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Parses the text and skips invalid lines.
pub(super) fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// Parses a line (`proc_pid_mountinfo(5)`): `id parent major:minor root point options [optional…] - type source
/// options`.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let root = fields.nth(3)?;
    let point = fields.next()?;
    let file_system = fields.skip_while(|&field| field != b"-").nth(1)?;
    Some(Mount {
        root: unescape(root),
        point: OsString::from_vec(unescape(point)).into(),
        file_system: file_system.to_owned(),
    })
}

/// Decodes the kernel's `\ooo` escapes of space, tab, newline and backslash (`mangle`, `fs/proc_namespace.c`).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] = rest {
            bytes.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
            rest = tail;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    bytes
}

/// Parses the inode in `net:[INODE]`, the nsfs name of a network namespace.
pub(super) fn netns_inode(name: &[u8]) -> Option<Netns> {
    number(name.strip_prefix(b"net:[")?.strip_suffix(b"]")?).map(Netns)
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_with_and_without_optional_fields_parse() {
        let text = b"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
            90 25 0:4 net:[4026532008] /run/netns/a\\040b rw shared:5 master:1 - nsfs nsfs rw\n\
            91 25 0:5 /docker/x /mnt/\xff\\134 rw - cgroup2 none rw\n\
            broken\n92 25 0:5 / /x rw shared:1\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[0].point, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mounts[0].file_system, b"cgroup2");
        assert_eq!(mounts[1].point, Path::new("/run/netns/a b"));
        assert_eq!(
            (mounts[1].file_system.as_slice(), netns_inode(&mounts[1].root)),
            (&b"nsfs"[..], Some(Netns(4_026_532_008)))
        );
        assert_eq!(mounts[2].root, b"/docker/x");
        assert_eq!(mounts[2].point, Path::new(OsStr::from_bytes(b"/mnt/\xff\\")));
    }

    #[test]
    fn names_of_other_namespaces_have_no_inode() {
        assert_eq!(netns_inode(b"mnt:[4026531840]"), None);
        assert_eq!(netns_inode(b"net:[]"), None);
        assert_eq!(netns_inode(b"net:[99999999999]"), None);
    }

    #[test]
    fn own_mounts_include_proc() {
        assert!(own_mounts().unwrap().iter().any(|mount| mount.file_system == b"proc"));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_a_panic(text in any::<Vec<u8>>()) {
            let _ = parse(&text);
        }
    }
}
