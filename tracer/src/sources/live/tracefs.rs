//! The layout of the classic tracepoint's record, from the `format` file in tracefs.

use std::{fs, io, path::PathBuf};

use tracer_ebpf::CtxLayout;

/// Where tracefs is, or may be mounted.
const MOUNT_POINTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
const EVENT: &str = "events/sock/inet_sock_set_state";

/// Why the tracepoint's layout is not known.
#[derive(Debug, thiserror::Error)]
pub enum TracefsError {
    /// tracefs is not mounted and could not be mounted.
    #[error(
        "tracefs is not mounted at /sys/kernel/tracing and mounting it privately failed ({0}); mount it with \
         `mount -t tracefs tracefs /sys/kernel/tracing`"
    )]
    NotMounted(io::Error),
    /// The tracepoint's directory cannot be read.
    #[error("the tracepoint's layout in {path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The format lacks a field or has one of an unexpected size.
    #[error(
        "the tracepoint sock:inet_sock_set_state has no usable field `{0}` on this kernel, so `--mode tracepoint` cannot work"
    )]
    Field(&'static str),
}

/// Runs `work` where tracefs is mounted.
///
/// When it is not, the calling thread gets a mount namespace of its own with tracefs in it; nothing
/// outside this thread sees that, and it ends with the thread. Meant for a scratch thread.
///
/// # Errors
///
/// [`TracefsError::NotMounted`] when there is no tracefs and no right to mount one.
pub fn with_tracefs<T>(work: impl FnOnce() -> T) -> Result<T, TracefsError> {
    if mounted().is_none() {
        mount_privately().map_err(TracefsError::NotMounted)?;
    }
    Ok(work())
}

/// The directory where tracefs is mounted, if it is.
pub fn mounted() -> Option<PathBuf> {
    MOUNT_POINTS.iter().map(PathBuf::from).find(|path| path.join("events").exists())
}

fn mount_privately() -> io::Result<()> {
    use rustix::{
        mount::{MountFlags, MountPropagationFlags, mount, mount_change},
        thread::{UnshareFlags, unshare_unsafe},
    };
    // SAFETY: a new mount namespace does not affect memory or file descriptors; the thread is a
    // scratch one, as documented.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    // What is mounted here must not appear in the host's namespace.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    mount("tracefs", MOUNT_POINTS[0], "tracefs", MountFlags::empty(), None)?;
    Ok(())
}

/// Reads the record layout of `sock:inet_sock_set_state`. tracefs must be mounted.
///
/// # Errors
///
/// When the file cannot be read, or lacks a field.
pub fn record_layout() -> Result<CtxLayout, TracefsError> {
    let root = mounted().unwrap_or_else(|| PathBuf::from(MOUNT_POINTS[0]));
    let path = root.join(EVENT).join("format");
    let text = fs::read_to_string(&path).map_err(|source| TracefsError::Unreadable { path, source })?;
    parse_format(&text)
}

/// One `field:` line of a `format` file.
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

/// Finds the fields in the text of a `format` file.
///
/// # Errors
///
/// [`TracefsError::Field`] naming the first field that is missing, of an unexpected size, or beyond
/// what the program copies.
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
    fn reads_the_layout_of_6_18() {
        let layout = parse_format(FROM_6_18).unwrap();
        assert_eq!((layout.skaddr, layout.oldstate, layout.newstate), (8, 16, 20));
        assert_eq!((layout.sport, layout.dport, layout.family), (24, 26, 28));
        assert_eq!((layout.protocol, layout.protocol_size), (30, 2));
        assert_eq!((layout.saddr, layout.daddr, layout.saddr_v6, layout.daddr_v6), (32, 36, 40, 56));
    }

    #[test]
    fn reads_a_one_byte_protocol_as_up_to_5_5() {
        let old = FROM_6_18
            .replace("__u16 protocol;\toffset:30;\tsize:2", "__u8 protocol;\toffset:30;\tsize:1")
            .replace("saddr[4];\toffset:32", "saddr[4];\toffset:31");
        let layout = parse_format(&old).unwrap();
        assert_eq!((layout.protocol, layout.protocol_size, layout.saddr), (30, 1, 31));
    }

    #[test]
    fn names_the_field_that_is_missing_or_odd() {
        let missing = FROM_6_18.replace("newstate", "anewstate");
        assert!(parse_format(&missing).unwrap_err().to_string().contains("`newstate`"));
        let beyond = FROM_6_18.replace("offset:56", "offset:81");
        assert!(parse_format(&beyond).unwrap_err().to_string().contains("`daddr_v6`"));
        let odd = FROM_6_18.replace("skaddr;\toffset:8;\tsize:8", "skaddr;\toffset:8;\tsize:4");
        assert!(parse_format(&odd).unwrap_err().to_string().contains("`skaddr`"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "(\t?field:[a-z_ *\\[\\]0-9]{0,20};?\t?(offset|size):[0-9]{0,12};?\n?){0,20}|.{0,200}") {
            let _ = parse_format(&text);
        }
    }
}
