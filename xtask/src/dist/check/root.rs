//! Clean root file systems.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::process;

/// Makes roots below a folder. Debian's are installed once and then copied.
pub(super) struct Roots {
    folder: PathBuf,
    archive: String,
}

impl Roots {
    /// Uses a folder and Debian's archive at a URI.
    pub(super) fn new(folder: &Path, archive: String) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
        Ok(Self { folder: folder.to_owned(), archive })
    }

    /// Returns the folder of the roots.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes a root with nothing but mount points.
    pub(super) fn empty(&self) -> Result<Root> {
        let root = Root { folder: self.folder.join("root-empty") };
        root.clear()?;
        for name in ["proc", "sys"] {
            fs::create_dir_all(root.folder.join(name))?;
        }
        Ok(root)
    }

    /// Makes a minimal Debian system with additional packages.
    pub(super) fn debian(&self, suite: &str, packages: &[&str]) -> Result<Root> {
        let name = [&[suite], packages].concat().join("-");
        let installed = self.folder.join(&name);
        if !installed.exists() {
            // The folder is renamed when complete, so that an interrupted run leaves no incomplete system.
            let partial = self.folder.join(format!("{name}.partial"));
            let _ = fs::remove_dir_all(&partial);
            let mut debootstrap = Command::new("debootstrap");
            debootstrap.arg("--variant=minbase");
            if !packages.is_empty() {
                debootstrap.arg(format!("--include={}", packages.join(",")));
            }
            process::run(debootstrap.arg(suite).arg(&partial).arg(&self.archive))?;
            fs::rename(&partial, &installed)?;
        }
        let root = Root { folder: self.folder.join(format!("root-{name}")) };
        root.clear()?;
        process::run(
            Command::new("cp").args(["--archive", "--reflink=auto"]).arg(&installed).arg(&root.folder),
        )?;
        Ok(root)
    }
}

/// A root file system, removed with this value.
pub(super) struct Root {
    folder: PathBuf,
}

impl Root {
    /// Returns the root's folder on the host.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the host's path of an absolute path in the root.
    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.folder.join(inside.trim_start_matches('/'))
    }

    /// Copies a file of the host to an absolute path in the root.
    pub(super) fn copy_in(&self, file: &Path, inside: &str) -> Result<()> {
        let to = self.path(inside);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(file, &to)
            .with_context(|| format!("could not copy {} to {}", file.display(), to.display()))?;
        Ok(())
    }

    /// Returns a command that runs a program in the root, with the host's /proc and /sys.
    pub(super) fn command(&self, program: &str) -> Command {
        let script =
            "mount --rbind /proc \"$0/proc\" && mount --rbind /sys \"$0/sys\" && exec chroot \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .arg(&self.folder)
            .arg(program)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Returns all files except those in folders where package managers and systems keep their own state.
    pub(super) fn files(&self) -> Result<BTreeSet<PathBuf>> {
        const STATE: [&str; 6] = ["proc", "sys", "run", "var/lib/dpkg", "var/lib/rpm", "var/log"];
        let mut files = BTreeSet::new();
        let mut open = vec![PathBuf::new()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(self.folder.join(&folder))? {
                let entry = entry?;
                let path = folder.join(entry.file_name());
                if STATE.iter().any(|state| path == Path::new(state)) {
                    continue;
                }
                if entry.file_type()?.is_dir() {
                    open.push(path.clone());
                }
                files.insert(path);
            }
        }
        Ok(files)
    }

    fn clear(&self) -> Result<()> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder)
                .with_context(|| format!("could not empty {}", self.folder.display()))?;
        }
        Ok(())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // The next run clears what cannot be removed now.
        let _ = self.clear();
    }
}
