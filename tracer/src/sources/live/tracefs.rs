//! Reads the record layout of the classic tracepoint from its `format` file in tracefs.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tracer_ebpf::CtxLayout;

/// The mount points of tracefs.
const MOUNT_POINTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
const EVENT: &str = "events/sock/inet_sock_set_state";

/// Why the layout of the tracepoint could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TracefsError {
    /// tracefs is not mounted and could not be mounted.
    #[error(
        "tracefs is not mounted at /sys/kernel/tracing and mounting it privately failed ({0}); mount it with \
         `mount -t tracefs tracefs /sys/kernel/tracing`"
    )]
    NotMounted(io::Error),
    /// The format file cannot be read.
    #[error("tracefs is mounted, but {path} cannot be read: {source}; run as root or use `--mode btf`")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A field is missing or has an unexpected size.
    #[error(
        "mode tracepoint does not work because sock:inet_sock_set_state has no usable field `{0}` on this kernel; use `--mode btf`"
    )]
    Field(&'static str),
}

/// Runs `work` with tracefs mounted. Call it on a temporary thread.
///
/// If tracefs is not mounted, the calling thread enters a new mount namespace and mounts it there. The mount is private
/// to the thread and ends with it.
///
/// # Errors
///
/// [`TracefsError::NotMounted`] when tracefs is not mounted and cannot be mounted.
pub fn with_tracefs<T>(work: impl FnOnce() -> T) -> Result<T, TracefsError> {
    if mounted().is_none() {
        mount_privately().map_err(TracefsError::NotMounted)?;
    }
    Ok(work())
}

/// Returns the directory where tracefs is mounted; `None` if it is not.
///
/// It may be mounted and not be readable, because by default only root may read it.
pub fn mounted() -> Option<PathBuf> {
    MOUNT_POINTS.iter().map(PathBuf::from).find(|path| is_tracefs(path))
}

fn is_tracefs(path: &Path) -> bool {
    /// `TRACEFS_MAGIC` in include/uapi/linux/magic.h.
    const TRACEFS_MAGIC: u32 = 0x7472_6163;
    // The width of the field differs between architectures; the number has 32 bits.
    rustix::fs::statfs(path)
        .is_ok_and(|stat| u32::try_from(stat.f_type).is_ok_and(|magic| magic == TRACEFS_MAGIC))
}

/// Checks that this process may read the tracepoints in a mounted tracefs.
///
/// # Errors
///
/// [`TracefsError::Unreadable`] names the folder and the cause.
pub fn check_readable(root: &Path) -> Result<(), TracefsError> {
    let path = root.join("events");
    match fs::read_dir(&path) {
        Ok(_) => Ok(()),
        Err(source) => Err(TracefsError::Unreadable { path, source }),
    }
}

fn mount_privately() -> io::Result<()> {
    use rustix::{
        mount::{MountFlags, MountPropagationFlags, mount, mount_change},
        thread::{UnshareFlags, unshare_unsafe},
    };
    // SAFETY: a new mount namespace affects neither memory nor file descriptors, and the thread is temporary.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    // The mount must not propagate to the host's namespace.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    mount("tracefs", MOUNT_POINTS[0], "tracefs", MountFlags::empty(), None)?;
    Ok(())
}

/// Reads the record layout of `sock:inet_sock_set_state`. Requires a mounted tracefs.
///
/// # Errors
///
/// When the file cannot be read, or a field is missing.
pub fn record_layout() -> Result<CtxLayout, TracefsError> {
    let root = mounted().unwrap_or_else(|| PathBuf::from(MOUNT_POINTS[0]));
    let path = root.join(EVENT).join("format");
    let text = fs::read_to_string(&path).map_err(|source| TracefsError::Unreadable { path, source })?;
    parse_format(&text)
}

/// A `field:` line of a `format` file.
#[derive(Debug, PartialEq, Eq)]
struct Field<'a> {
    name: &'a str,
    offset: u32,
    size: u32,
}

fn parse_field(line: &str) -> Option<Field<'_>> {
    let mut parts = line.trim().split(';').map(str::trim);
    let declaration = parts.next()?.strip_prefix("field:")?;
    let name = declaration.rsplit([' ', '*']).next()?;
    let name = name.split('[').next()?;
    let (mut offset, mut size) = (None, None);
    for part in parts {
        if let Some(value) = part.strip_prefix("offset:") {
            offset = value.parse().ok();
        } else if let Some(value) = part.strip_prefix("size:") {
            size = value.parse().ok();
        }
    }
    Some(Field { name, offset: offset?, size: size? })
}

/// Parses the text of a `format` file.
///
/// # Errors
///
/// [`TracefsError::Field`] with the first field that is missing, has an unexpected size, or is outside of the bytes
/// that the program copies.
pub fn parse_format(text: &str) -> Result<CtxLayout, TracefsError> {
    let fields: Vec<Field<'_>> = text.lines().filter_map(parse_field).collect();
    let find = |name: &'static str, sizes: &[u32]| {
        fields
            .iter()
            .find(|field| field.name == name)
            .filter(|field| sizes.contains(&field.size))
            .filter(|field| {
                field.offset.checked_add(field.size).is_some_and(|end| end as usize <= CtxLayout::SPAN)
            })
            .ok_or(TracefsError::Field(name))
    };
    Ok(CtxLayout {
        skaddr: find("skaddr", &[8])?.offset,
        oldstate: find("oldstate", &[4])?.offset,
        newstate: find("newstate", &[4])?.offset,
        sport: find("sport", &[2])?.offset,
        dport: find("dport", &[2])?.offset,
        family: find("family", &[2])?.offset,
        protocol: find("protocol", &[1, 2])?.offset,
        protocol_size: find("protocol", &[1, 2])?.size,
        saddr: find("saddr", &[4])?.offset,
        daddr: find("daddr", &[4])?.offset,
        saddr_v6: find("saddr_v6", &[16])?.offset,
        daddr_v6: find("daddr_v6", &[16])?.offset,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FROM_6_18: &str = include_str!("../../../tests/data/inet_sock_set_state.format");

    #[test]
    fn the_layout_of_6_18_parses() {
        let layout = parse_format(FROM_6_18).unwrap();
        assert_eq!((layout.skaddr, layout.oldstate, layout.newstate), (8, 16, 20));
        assert_eq!((layout.sport, layout.dport, layout.family), (24, 26, 28));
        assert_eq!((layout.protocol, layout.protocol_size), (30, 2));
        assert_eq!((layout.saddr, layout.daddr, layout.saddr_v6, layout.daddr_v6), (32, 36, 40, 56));
    }

    #[test]
    fn the_one_byte_protocol_up_to_5_5_parses() {
        let old = FROM_6_18
            .replace("__u16 protocol;\toffset:30;\tsize:2", "__u8 protocol;\toffset:30;\tsize:1")
            .replace("saddr[4];\toffset:32", "saddr[4];\toffset:31");
        let layout = parse_format(&old).unwrap();
        assert_eq!((layout.protocol, layout.protocol_size, layout.saddr), (30, 1, 31));
    }

    #[test]
    fn a_missing_or_unusable_field_is_named() {
        let missing = FROM_6_18.replace("newstate", "anewstate");
        assert!(parse_format(&missing).unwrap_err().to_string().contains("`newstate`"));
        let beyond = FROM_6_18.replace("offset:56", "offset:81");
        assert!(parse_format(&beyond).unwrap_err().to_string().contains("`daddr_v6`"));
        let odd = FROM_6_18.replace("skaddr;\toffset:8;\tsize:8", "skaddr;\toffset:8;\tsize:4");
        assert!(parse_format(&odd).unwrap_err().to_string().contains("`skaddr`"));
    }

    proptest! {
        #[test]
        fn any_text_parses_without_a_panic(text in "(\t?field:[a-z_ *\\[\\]0-9]{0,20};?\t?(offset|size):[0-9]{0,12};?\n?){0,20}|.{0,200}") {
            let _ = parse_format(&text);
        }
    }
}
