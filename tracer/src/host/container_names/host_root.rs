//! The root of the host's file system.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Dir, FileType, Mode, OFlags, ResolveFlags, SeekFrom},
    io::Errno,
};

/// Flags to open a file or a directory of the host, which may be anything: a FIFO must not block.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// The root of the host's file system, as mounted here. A container of the host has it elsewhere than at `/`.
#[derive(Debug)]
pub(super) struct HostRoot {
    path: PathBuf,
    /// None if it cannot be opened.
    directory: Option<OwnedFd>,
}

impl HostRoot {
    pub(super) fn open(path: &Path) -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self { path: path.to_owned(), directory: rustix::fs::open(path, flags, Mode::empty()).ok() }
    }

    /// Opens a path relative to the root. Symbolic links are resolved within the root, as on the host.
    pub(super) fn open_below(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let root = self.directory.as_ref().ok_or(Errno::NOENT)?;
        let flags = flags | READ;
        match rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
            // A seccomp filter may refuse the system call.
            Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(root, path, flags, Mode::empty()),
            opened => opened,
        }
    }

    /// Returns whether a path relative to the root exists.
    pub(super) fn exists(&self, path: &Path) -> bool {
        self.open_below(path, OFlags::empty()).is_ok()
    }

    /// Reads a regular file of at most `limit` bytes.
    pub(super) fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>, Errno> {
        read_file(&self.open_below(path, OFlags::empty())?, limit)
    }

    /// Returns the name of the node: of this host, or of the one whose file system this is.
    pub(super) fn node_name(&self) -> String {
        let own = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        if self.path == Path::new("/") {
            return own();
        }
        match self.read(Path::new("etc/hostname"), 4096) {
            Ok(name) => String::from_utf8_lossy(&name).trim().to_owned(),
            Err(_) => own(),
        }
    }
}

/// Reads a regular file of at most `limit` bytes.
pub(super) fn read_file(file: &OwnedFd, limit: u64) -> Result<Vec<u8>, Errno> {
    let stat = rustix::fs::fstat(file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size > limit {
        return Err(Errno::FBIG);
    }
    let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    let duplicate = rustix::io::fcntl_dupfd_cloexec(file, 0)?;
    // The file may grow meanwhile.
    std::fs::File::from(duplicate)
        .take(limit)
        .read_to_end(&mut content)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(content)
}

/// Opens and reads a regular file in a directory.
pub(super) fn read_in(directory: impl AsFd, path: &Path, limit: u64) -> Result<Vec<u8>, Errno> {
    read_file(&rustix::fs::openat(directory, path, READ | OFlags::NOFOLLOW, Mode::empty())?, limit)
}

/// Returns the entries of an open directory. Needs no permission: opening it has checked that.
pub(super) fn entries(directory: &OwnedFd) -> Result<Dir, Errno> {
    let duplicate = rustix::io::fcntl_dupfd_cloexec(directory, 0)?;
    // The duplicate shares its position with the original.
    rustix::fs::seek(&duplicate, SeekFrom::Start(0))?;
    Dir::new(duplicate)
}
