//! Resolves a cgroup id to its directory with `open_by_handle_at`, which requires `CAP_DAC_READ_SEARCH`.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

use rustix::{
    fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    io::Errno,
};
use tracer_core::event::CgroupId;

/// `FILEID_KERNFS` of `include/linux/exportfs.h` (5.5+): the handle is the 8-byte `kernfs_node` id.
const FILEID_KERNFS: i32 = 0xfe;

/// `struct file_handle` with its flexible array member at its full size of 8 bytes.
#[repr(C)]
struct KernfsHandle {
    header: libc::file_handle,
    id: [u8; 8],
}

/// Why an id has no directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HandleError {
    /// No existing cgroup has this id.
    NotFound,
    /// File handles do not work: `CAP_DAC_READ_SEARCH` is missing, a seccomp filter refuses the call, or the kernel is
    /// older than 5.5.
    Unavailable,
}

/// Returns the full path of the directory of cgroup `id`. `hierarchy` is any open directory of the cgroup2 mount.
pub(super) fn directory_of(hierarchy: impl AsFd, id: CgroupId) -> Result<PathBuf, HandleError> {
    let directory = open(hierarchy, id).map_err(|error| match error {
        Errno::STALE | Errno::NOENT | Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::INTR => {
            HandleError::NotFound
        }
        _ => HandleError::Unavailable,
    })?;
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::new()).map_err(|_| HandleError::Unavailable)?;
    let path = path.as_bytes();
    // The kernel marks a directory that was removed after it was opened.
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    Ok(PathBuf::from(OsStr::from_bytes(path)))
}

fn open(hierarchy: impl AsFd, id: CgroupId) -> Result<OwnedFd, Errno> {
    let mut handle = KernfsHandle {
        header: libc::file_handle { handle_bytes: 8, handle_type: FILEID_KERNFS, f_handle: [] },
        id: id.0.to_ne_bytes(),
    };
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the pointer refers to the complete handle, and its header has the length of the 8 bytes after it. The
    // kernel only reads the handle.
    let fd =
        unsafe { libc::open_by_handle_at(hierarchy.as_fd().as_raw_fd(), (&raw mut handle).cast(), flags) };
    if fd < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    // SAFETY: the call returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

const _: () = assert!(size_of::<KernfsHandle>() == 16);
