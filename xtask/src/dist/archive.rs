//! Writes archives that depend only on the packed files, and their checksums.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::{ebpf::sidecar::hex, process};

/// Returns the modification time of every file in the archive, in seconds since the epoch:
/// `SOURCE_DATE_EPOCH`, or the time of the last commit, or 0.
///
/// # Errors
///
/// If `SOURCE_DATE_EPOCH` is not a number.
pub(super) fn timestamp(root: &Path) -> Result<u64> {
    if let Ok(text) = env::var("SOURCE_DATE_EPOCH") {
        return text.parse().with_context(|| {
            format!("SOURCE_DATE_EPOCH is `{text}`: give it whole seconds since 1970, or leave it unset")
        });
    }
    let committed =
        process::probe(Command::new("git").current_dir(root).args(["log", "-1", "--format=%ct"]))?;
    Ok(committed.and_then(|text| text.trim().parse().ok()).unwrap_or(0))
}

/// Packs a folder into NAME.tar.gz in `to`; its top folder there is NAME, which must not contain `,`, `&` or a backslash.
///
/// # Errors
///
/// If GNU tar or gzip is missing or fails.
pub(super) fn pack(folder: &Path, name: &str, timestamp: u64, to: &Path) -> Result<PathBuf> {
    let packed = to.join(format!("{name}.tar.gz"));
    process::run(
        tar(folder, timestamp)
            .arg("--use-compress-program=gzip --best --no-name")
            // Names of files only, not the targets of links.
            .arg(format!("--transform=flags=rh;s,^[.],{name},"))
            .arg("--file")
            .arg(&packed)
            .arg("."),
    )?;
    Ok(packed)
}

/// Returns GNU tar, about to pack files below `folder` with sorted names, one time, one owner, and permissions
/// independent of the umask.
pub(super) fn tar(folder: &Path, timestamp: u64) -> Command {
    let mut tar = Command::new("tar");
    // Sorts names by bytes, independently of the locale.
    tar.env("LC_ALL", "C")
        .args(["--create", "--format=gnu", "--sort=name", "--numeric-owner", "--owner=0", "--group=0"])
        .arg("--mode=u=rwX,go=rX")
        .arg(format!("--mtime=@{timestamp}"))
        .arg("--directory")
        .arg(folder);
    tar
}

/// Writes SHA256SUMS into a folder, for `sha256sum --check`.
///
/// # Errors
///
/// If a file cannot be read or the checksums cannot be written.
pub(super) fn write_sums(folder: &Path, files: &[PathBuf]) -> Result<PathBuf> {
    let mut text = String::new();
    for file in files {
        let bytes = fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
        let name = file.file_name().context("a file to sum has no name")?.to_string_lossy();
        writeln!(text, "{}  {name}", hex(Sha256::new_with_prefix(bytes)))?;
    }
    let sums = folder.join("SHA256SUMS");
    fs::write(&sums, text).with_context(|| format!("could not write {}", sums.display()))?;
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::unix::fs::PermissionsExt as _,
        process::Output,
        time::{Duration, SystemTime},
    };

    const NAME: &str = "tool-1.0";
    const FILES: [&str; 4] = ["bin/tool", "share/man/man1/tool.1", "a", "Z"];

    /// Creates the same files; `reversed` changes their order, times and modes.
    fn folder(root: &Path, reversed: bool) -> PathBuf {
        let folder = root.join("tree");
        let mut files = FILES;
        if reversed {
            files.reverse();
        }
        for (age, name) in files.iter().enumerate() {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("this is {name}\n")).unwrap();
            let executable = if name.starts_with("bin/") { 0o711 } else { 0o600 };
            let mode = if reversed { executable } else { executable | 0o044 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let changed = SystemTime::now() - Duration::from_secs(1000 * u64::try_from(age).unwrap());
            fs::File::options().append(true).open(&path).unwrap().set_modified(changed).unwrap();
        }
        folder
    }

    fn output(command: &mut Command) -> Output {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    #[test]
    fn archive_depends_only_on_names_and_contents() {
        let roots = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [first, second] = [(&roots[0], false), (&roots[1], true)].map(|(root, reversed)| {
            fs::read(pack(&folder(root.path(), reversed), NAME, 1_700_000_000, root.path()).unwrap()).unwrap()
        });
        assert!(first == second, "{} and {} bytes differ", first.len(), second.len());

        let root = tempfile::tempdir().unwrap();
        let other = folder(root.path(), false);
        fs::write(other.join("a"), "this is another\n").unwrap();
        assert!(fs::read(pack(&other, NAME, 1_700_000_000, root.path()).unwrap()).unwrap() != first);
    }

    #[test]
    fn archive_has_fixed_order_owner_time_and_modes() {
        let root = tempfile::tempdir().unwrap();
        let packed = pack(&folder(root.path(), true), NAME, 1_700_000_000, root.path()).unwrap();
        let listed = output(
            Command::new("tar")
                .env("TZ", "UTC")
                .args(["--list", "--verbose", "--numeric-owner", "--full-time", "--file"])
                .arg(&packed),
        );
        let listed = String::from_utf8(listed.stdout).unwrap();
        let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(
            lines.iter().all(|line| line[1] == "0/0" && line[3..5] == ["2023-11-14", "22:13:20"]),
            "{listed}"
        );
        let modes: Vec<(&str, &str)> = lines.iter().map(|line| (line[5], line[0])).collect();
        assert_eq!(
            modes,
            [
                ("tool-1.0/", "drwxr-xr-x"),
                ("tool-1.0/Z", "-rw-r--r--"),
                ("tool-1.0/a", "-rw-r--r--"),
                ("tool-1.0/bin/", "drwxr-xr-x"),
                ("tool-1.0/bin/tool", "-rwxr-xr-x"),
                ("tool-1.0/share/", "drwxr-xr-x"),
                ("tool-1.0/share/man/", "drwxr-xr-x"),
                ("tool-1.0/share/man/man1/", "drwxr-xr-x"),
                ("tool-1.0/share/man/man1/tool.1", "-rw-r--r--"),
            ]
        );
    }

    #[test]
    fn sha256sum_accepts_the_checksums() {
        let root = tempfile::tempdir().unwrap();
        let packed = pack(&folder(root.path(), false), NAME, 0, root.path()).unwrap();
        write_sums(root.path(), &[packed]).unwrap();
        let checked = output(Command::new("sha256sum").current_dir(root.path()).args([
            "--check",
            "--strict",
            "SHA256SUMS",
        ]));
        assert_eq!(String::from_utf8(checked.stdout).unwrap(), "tool-1.0.tar.gz: OK\n");
    }
}
