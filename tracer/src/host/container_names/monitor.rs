//! The process that monitors a container of Podman, whose command line has the name of the container.
//!
//! Every user may read command lines, so this also finds containers of other users, whose files are closed to root without
//! capabilities.

use std::{ffi::CString, path::Path};

use rustix::fd::OwnedFd;

use crate::host::{
    container::is_name,
    process::files::{self, Stat},
};

/// Most ancestors that are followed. The monitor is the parent of the first process of the container.
const MAX_ANCESTORS: usize = 32;

/// Returns the name of the container with this id, in which process `pid` runs, from its `conmon`. `proc_root` is a mounted
/// procfs.
pub(super) fn name_by_monitor(proc_root: &Path, pid: u32, id: &str) -> Option<String> {
    let root = open_root(proc_root)?;
    let (mut pid, mut text) = (pid, Vec::new());
    for _ in 0..MAX_ANCESTORS {
        // A process that has ended has no files.
        read(&root, pid, "stat", &mut text)?;
        pid = Stat::parse(&text)?.parent;
        if pid <= 1 {
            return None;
        }
        read(&root, pid, "cmdline", &mut text)?;
        if let Some(name) = name_in(&text, id) {
            return Some(name);
        }
    }
    None
}

fn open_root(proc_root: &Path) -> Option<OwnedFd> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = CString::new(proc_root.as_os_str().as_bytes()).ok()?;
    files::open_directory(rustix::fs::CWD, &path).ok()
}

fn read(root: &OwnedFd, pid: u32, file: &str, text: &mut Vec<u8>) -> Option<()> {
    let path = CString::new(format!("{pid}/{file}")).ok()?;
    files::read(root, &path, text).ok()
}

/// Returns the value of `-n` of a command line of `conmon` whose `-c` is the id.
fn name_in(line: &[u8], id: &str) -> Option<String> {
    let mut words = line.split(|&byte| byte == 0);
    if words.next()?.rsplit(|&byte| byte == b'/').next()? != b"conmon" {
        return None;
    }
    let words: Vec<&[u8]> = words.collect();
    let value =
        |option: &[u8]| words.iter().position(|word| *word == option).and_then(|at| words.get(at + 1));
    let name = str::from_utf8(value(b"-n")?).ok()?;
    (*value(b"-c")? == id.as_bytes() && is_name(name)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ID: &str = "3f4e8c1d9a7b2e6f5c0d1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f";

    #[test]
    fn the_monitor_is_an_ancestor() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: u32, parent: u32, line: &str| {
            let folder = proc.path().join(pid.to_string());
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("cmdline"), line.replace(' ', "\0").replace("$ID", ID)).unwrap();
            let stat = format!("{pid} (a b) c) S {parent} 1 1 0 -1 4194560{}\n", " 0".repeat(40));
            fs::write(folder.join("stat"), stat).unwrap();
        };
        process(20, 1, "/usr/bin/conmon --api-version 1 -c $ID -u $ID -r /usr/bin/crun -n web --exit-dir /x");
        process(21, 20, "nginx: master");
        process(22, 21, "nginx: worker");
        process(30, 1, "/usr/bin/conmon -c other -n db");
        process(31, 30, "postgres");
        process(40, 41, "a loop");
        process(41, 40, "a loop");
        let name = |pid| name_by_monitor(proc.path(), pid, ID);
        assert_eq!((name(22), name(21)), (Some("web".to_owned()), Some("web".to_owned())));
        assert_eq!((name(20), name(31), name(41), name(99)), (None, None, None, None));
    }

    #[test]
    fn other_command_lines_have_no_name() {
        for line in [
            "",
            "conmon",
            "conmon -c",
            "conmon -n",
            "conmon -c $ID -n",
            "sleep -c $ID -n web",
            "conmon -c $ID -n a/b",
        ] {
            assert_eq!(name_in(line.replace(' ', "\0").replace("$ID", ID).as_bytes(), ID), None, "{line}");
        }
    }
}
