//! Reads the cgroup of a process from `/proc/PID/cgroup`, the only source on hosts without cgroup v2.

use std::path::Path;

use crate::host::process::files;

/// Controllers in whose v1 hierarchies every runtime creates its containers, in order of preference.
const CONTROLLERS: [&[u8]; 4] = [b"pids", b"memory", b"cpu", b"name=systemd"];

/// Returns the cgroup path of process `pid`, or `None` when the process does not exist or cannot be read.
///
/// `proc_root` is a mounted procfs, usually `/proc`. [`parse_process_cgroup`] selects one of several hierarchies.
pub fn cgroup_of_process(proc_root: &Path, pid: u32) -> Option<String> {
    let path = std::ffi::CString::new(format!("{pid}/cgroup")).ok()?;
    let root = rustix::fs::open(
        proc_root,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .ok()?;
    let mut text = Vec::new();
    files::read(root, &path, &mut text).ok()?;
    parse_process_cgroup(&text)
}

/// Selects a path from the content of `/proc/PID/cgroup` (cgroups(7)).
///
/// Returns the v2 path unless it is `/`. On v1 and hybrid hosts, processes stay in the v2 root and their containers are
/// in the v1 hierarchies. There, the result is the deepest path among the controllers pids, memory, cpu and
/// `name=systemd`; the first controller wins a tie. The result is `/` when all paths are `/`. The suffix ` (deleted)`
/// of a removed cgroup is stripped. Bytes that are not UTF-8 become U+FFFD.
fn parse_process_cgroup(text: &[u8]) -> Option<String> {
    let mut best: Option<(usize, usize, &[u8])> = None;
    for (controllers, path) in text.split(|&byte| byte == b'\n').filter_map(split_line) {
        let rank = if controllers.is_empty() {
            if path != b"/" {
                return Some(String::from_utf8_lossy(path).into_owned());
            }
            CONTROLLERS.len()
        } else {
            let rank = CONTROLLERS
                .iter()
                .position(|name| controllers.split(|&byte| byte == b',').any(|has| has == *name));
            let Some(rank) = rank else { continue };
            rank
        };
        let depth = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).count();
        if best.is_none_or(|(least, first, _)| depth > least || (depth == least && rank < first)) {
            best = Some((depth, rank, path));
        }
    }
    best.map(|(.., path)| String::from_utf8_lossy(path).into_owned())
}

/// Splits `hierarchy:controllers:path` into controllers and path. The controllers are empty only for v2: a v1 hierarchy
/// always has at least a name.
fn split_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = line.splitn(3, |&byte| byte == b':');
    let (_hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    if path.first() != Some(&b'/') {
        return None;
    }
    Some((controllers, path.strip_suffix(b" (deleted)").unwrap_or(path)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_most_specific_path_is_selected() {
        let cases: &[(&[u8], Option<&str>)] = &[
            (b"0::/system.slice/nginx.service\n", Some("/system.slice/nginx.service")),
            (b"0::/\n", Some("/")),
            (b"0::/gone (deleted)\n", Some("/gone")),
            (b"12:pids:/docker/a\n4:memory:/docker/a\n1:name=systemd:/docker/a\n0::/\n", Some("/docker/a")),
            (b"9:memory:/a\n8:pids:/\n3:cpu,cpuacct:/b/c\n0::/\n", Some("/b/c")),
            (b"9:memory:/memory\n8:pids:/pids\n0::/\n", Some("/pids")),
            (b"9:memory:/a/b\n0::/v2\n", Some("/v2")),
            (b"5:devices:/a/b/c\n4:cpuset:/x\n2:name=systemd:/\n", Some("/")),
            (b"5:devices:/a\n", None),
            (b"0::/slice:cri-containerd:id\n", Some("/slice:cri-containerd:id")),
            (b"0::/\xff\n", Some("/\u{fffd}")),
            (b"0::relative\nnonsense\n", None),
            (b"", None),
        ];
        for (text, path) in cases {
            assert_eq!(parse_process_cgroup(text).as_deref(), *path, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn this_process_has_a_cgroup() {
        let path = cgroup_of_process(Path::new("/proc"), std::process::id()).unwrap();
        assert!(path.starts_with('/'), "{path}");
        assert_eq!(cgroup_of_process(Path::new("/proc"), u32::MAX), None);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_a_panic(text in any::<Vec<u8>>()) {
            if let Some(path) = parse_process_cgroup(&text) {
                prop_assert!(path.starts_with('/'));
            }
        }
    }
}
