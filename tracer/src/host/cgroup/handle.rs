//! From a cgroup's id to its directory in one system call, for who may do it.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

use rustix::{
    fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    io::Errno,
};

/// `FILEID_KERNFS` of `include/linux/exportfs.h` (5.5+): the handle is the 8-byte `kernfs_node` id.
const FILEID_KERNFS: i32 = 0xfe;

/// `struct file_handle` with its flexible array spelled out.
#[repr(C)]
struct KernfsHandle {
    header: libc::file_handle,
    id: [u8; 8],
}

/// Why there is no directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandleError {
    /// No live cgroup has that id.
    Gone,
    /// Handles cannot be used at all: no `CAP_DAC_READ_SEARCH`, refused by a seccomp filter, or a
    /// kernel before 5.5.
    Unavailable,
}

/// Full path of the directory of cgroup `id`; `hierarchy` is any directory opened in the cgroup2 mount.
pub(super) fn directory_of(hierarchy: impl AsFd, id: u64) -> Result<PathBuf, HandleError> {
    let directory = open(hierarchy, id).map_err(|error| match error {
        Errno::STALE | Errno::NOENT | Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR => {
            HandleError::Gone
        }
        _ => HandleError::Unavailable,
    })?;
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::new()).map_err(|_| HandleError::Unavailable)?;
    let path = path.as_bytes();
    // Removed since it was opened: the kernel says so behind the path.
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    Ok(PathBuf::from(OsStr::from_bytes(path)))
}

fn open(hierarchy: impl AsFd, id: u64) -> Result<OwnedFd, Errno> {
    let mut handle = KernfsHandle {
        header: libc::file_handle { handle_bytes: 8, handle_type: FILEID_KERNFS, f_handle: [] },
        id: id.to_ne_bytes(),
    };
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the pointer covers the whole handle, whose header announces the 8 bytes that follow
    // it; the kernel only reads it.
    let fd =
        unsafe { libc::open_by_handle_at(hierarchy.as_fd().as_raw_fd(), (&raw mut handle).cast(), flags) };
    if fd < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    // SAFETY: the call just returned this descriptor and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

const _: () = assert!(size_of::<KernfsHandle>() == 16);
