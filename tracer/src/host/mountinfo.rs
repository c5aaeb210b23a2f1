//! `/proc/PID/mountinfo`, as far as cgroups and network namespaces need it.
//!
//! Read as bytes: mount points are file names, and those need not be UTF-8.

use std::{ffi::OsString, io, os::unix::ffi::OsStringExt, path::PathBuf};

use crate::host::process::files::number;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The directory of the file system that is mounted, or for nsfs a text such as `net:[4026531840]`.
    pub(super) root: Vec<u8>,
    /// Where.
    pub(super) point: PathBuf,
    /// Type of the file system.
    pub(super) file_system: Vec<u8>,
}

/// The mounts this process sees, in the order they were made.
pub(super) fn own_mounts() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Lines that are not understood are left out.
pub(super) fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// `proc_pid_mountinfo(5)`: `id parent major:minor root point options [optional…] - type source options`.
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

/// Undoes the kernel's `\ooo` for space, tab, newline and backslash (`mangle`, `fs/proc_namespace.c`).
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

/// The inode in `net:[INODE]`, as nsfs names a network namespace.
pub(super) fn netns_inode(name: &[u8]) -> Option<u32> {
    number(name.strip_prefix(b"net:[")?.strip_suffix(b"]")?)
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_every_shape() {
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
            (&b"nsfs"[..], Some(4_026_532_008))
        );
        assert_eq!(mounts[2].root, b"/docker/x");
        assert_eq!(mounts[2].point, Path::new(OsStr::from_bytes(b"/mnt/\xff\\")));
    }

    #[test]
    fn only_network_namespaces_have_an_inode() {
        assert_eq!(netns_inode(b"mnt:[4026531840]"), None);
        assert_eq!(netns_inode(b"net:[]"), None);
        assert_eq!(netns_inode(b"net:[99999999999]"), None);
    }

    #[test]
    fn own_mounts_hold_proc() {
        assert!(own_mounts().unwrap().iter().any(|mount| mount.file_system == b"proc"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(text in any::<Vec<u8>>()) {
            let _ = parse(&text);
        }
    }
}
