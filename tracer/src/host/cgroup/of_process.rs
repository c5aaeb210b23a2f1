//! Reads the cgroup of a process from `/proc/PID/cgroup`, the only source on hosts without cgroup v2.

use std::path::Path;

use crate::host::process::files;

/// Controllers in whose v1 hierarchies every runtime creates its containers, in order of preference.
const CONTROLLERS: [&[u8]; 4] = [b"pids", b"memory", b"cpu", b"name=systemd"];

/// Returns the cgroup path of process `pid`, or `None` when the process does not exist or cannot be read.
///
/// `proc_root` is a mounted procfs, usually `/proc`. [`parse_process_cgroup`] selects one of several hierarchies.
///
/// The kernel moves an exiting process to the root of every v1 hierarchy (`proc_cgroup_show`, 6.18 cgroup.c), so `/` says
/// nothing about it.
pub fn cgroup_of_process(proc_root: &Path, pid: u32) -> Option<String> {
    let text = read(proc_root, &format!("{pid}/cgroup"))?;
    let path = parse_process_cgroup(&text)?;
    let may_be_gone = path == "/" && names_v1(&text);
    (!may_be_gone || is_running(&read(proc_root, &format!("{pid}/stat"))?)).then_some(path)
}

/// Returns whether the root of the v2 hierarchy says nothing about a socket, because this host's processes are in v1
/// hierarchies.
pub(in crate::host) fn uses_v1(proc_root: &Path) -> bool {
    read(proc_root, "self/cgroup").is_some_and(|text| names_v1(&text))
}

/// Returns whether the content of `/proc/PID/cgroup` names a v1 hierarchy of [`CONTROLLERS`].
fn names_v1(text: &[u8]) -> bool {
    text.split(|&byte| byte == b'\n').filter_map(split_line).any(|(controllers, _)| {
        controllers.split(|&byte| byte == b',').any(|controller| CONTROLLERS.contains(&controller))
    })
}

/// Returns whether the content of `/proc/PID/stat` is that of a process without `PF_EXITING`
/// (`include/linux/sched.h`, 0x4).
fn is_running(stat: &[u8]) -> bool {
    // The name may contain spaces and parentheses. The flags are the seventh field after it.
    let after_name = stat.iter().rposition(|&byte| byte == b')').and_then(|end| stat.get(end + 2..));
    let flags = after_name.and_then(|fields| fields.split(|&byte| byte == b' ').nth(6));
    let flags = flags.and_then(|flags| std::str::from_utf8(flags).ok()?.parse::<u32>().ok());
    flags.is_some_and(|flags| flags & 0x4 == 0)
}

fn read(proc_root: &Path, path: &str) -> Option<Vec<u8>> {
    let path = std::ffi::CString::new(path).ok()?;
    let root = rustix::fs::open(
        proc_root,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .ok()?;
    let mut text = Vec::new();
    files::read(root, &path, &mut text).ok()?;
    Some(text)
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
    fn an_exited_process_is_not_in_the_root() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: u32, cgroup: &str, flags: &str| {
            let folder = proc.path().join(pid.to_string());
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("cgroup"), cgroup).unwrap();
            std::fs::write(folder.join("stat"), format!("{pid} (a b) c) S 1 1 1 0 -1 {flags} 0\n")).unwrap();
        };
        process(1, "9:memory:/\n0::/\n", "4194560");
        process(2, "9:memory:/\n0::/\n", "4194564");
        process(3, "9:memory:/a\n0::/\n", "4194564");
        process(4, "0::/\n", "4194564");
        let path = |pid| cgroup_of_process(proc.path(), pid);
        assert_eq!(
            [path(1), path(2)].map(|path| path.as_deref().map(str::to_owned)),
            [Some("/".into()), None]
        );
        assert_eq!(path(3).as_deref(), Some("/a"), "the process has not reached the end of its exit");
        assert_eq!(path(4).as_deref(), Some("/"), "v2 keeps the path");
    }

    #[test]
    fn a_zombie_has_a_cgroup_other_than_the_root_of_v1_or_none() {
        use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

        let mut child = std::process::Command::new("true").spawn().unwrap();
        let ended = WaitId::Pid(Pid::from_child(&child));
        waitid(ended, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        let path = cgroup_of_process(Path::new("/proc"), child.id());
        child.wait().unwrap();
        if uses_v1(Path::new("/proc")) {
            assert!(path.as_deref() != Some("/"), "{path:?}");
        } else {
            assert_eq!(path, cgroup_of_process(Path::new("/proc"), std::process::id()));
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
