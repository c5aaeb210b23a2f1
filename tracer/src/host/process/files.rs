//! Reads the files of a process in `/proc` as bytes, because the process controls parts of their content.

use std::ffi::CStr;

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags},
    io::{self, Errno},
};

/// `PF_KTHREAD` of `include/linux/sched.h`: the task is a kernel thread.
const PF_KTHREAD: u64 = 0x0020_0000;

/// Most bytes read from a file. `stat`, `status` and `comm` are much smaller.
const FILE_LIMIT: usize = 16 << 10;

/// Opens a directory, to read its entries or as a base for `openat`.
pub(in crate::host) fn open_directory(base: impl AsFd, path: &CStr) -> io::Result<OwnedFd> {
    rustix::fs::openat(base, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Replaces the content of `buffer` with that of a file. Stops reading after [`FILE_LIMIT`] bytes.
pub(in crate::host) fn read(base: impl AsFd, path: &CStr, buffer: &mut Vec<u8>) -> io::Result<()> {
    let file = rustix::fs::openat(base, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    buffer.clear();
    buffer.reserve(1024);
    while buffer.len() < FILE_LIMIT {
        match io::read(&file, rustix::buffer::spare_capacity(buffer)) {
            Ok(0) => break,
            Ok(_) => buffer.reserve(1024),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The parsed fields of `/proc/PID/stat` (`proc_pid_stat(5)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) struct Stat {
    /// Process id of the parent; 0 for the first process and for the root of the kernel threads.
    pub(in crate::host) parent: u32,
    /// Whether it is a kernel thread.
    pub(in crate::host) kernel_thread: bool,
    /// Start time, clock ticks since boot.
    pub(in crate::host) start_time_ticks: u64,
}

impl Stat {
    pub(in crate::host) fn parse(text: &[u8]) -> Option<Self> {
        // The name is in parentheses and may contain parentheses. The fields after it do not.
        let end = text.iter().rposition(|&byte| byte == b')')?;
        let mut fields = text[end + 1..].split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        // The first field is field 3 (state). `nth` counts from the position after the previous call.
        let parent = number(fields.nth(1)?)?;
        let flags: u64 = number(fields.nth(4)?)?;
        let start_time_ticks = number(fields.nth(12)?)?;
        Some(Self { parent, kernel_thread: flags & PF_KTHREAD != 0, start_time_ticks })
    }
}

/// The parsed fields of `/proc/PID/status` (`proc_pid_status(5)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host) struct Status {
    /// Real user id in the reader's user namespace.
    pub(in crate::host) uid: u32,
}

impl Status {
    pub(in crate::host) fn parse(text: &[u8]) -> Option<Self> {
        let uid = field(text, b"Uid:")?.next().and_then(number)?;
        Some(Self { uid })
    }
}

/// Returns how many ids `status` lists for the process: one for each pid namespace from that of the procfs down to its own.
pub(in crate::host) fn pid_levels(text: &[u8]) -> Option<usize> {
    Some(field(text, b"NSpid:")?.count())
}

/// Returns the values of a line of `status`. The kernel escapes newlines in `Name:`, so a process cannot forge a line.
fn field<'a>(text: &'a [u8], name: &[u8]) -> Option<impl Iterator<Item = &'a [u8]>> {
    let values = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name))?;
    Some(values.split(u8::is_ascii_whitespace).filter(|value| !value.is_empty()))
}

/// Parses `/proc/PID/comm` into a NUL-padded name of at most 15 bytes of any value.
pub(in crate::host) fn parse_comm(text: &[u8]) -> [u8; 16] {
    let name = text.strip_suffix(b"\n").unwrap_or(text);
    let mut comm = [0; 16];
    for (to, &from) in comm.iter_mut().zip(name.iter().take(15)) {
        *to = from;
    }
    comm
}

/// Parses a decimal number without a sign.
pub(in crate::host) fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REST: &str =
        "S 77 1 1 0 -1 4194560 5 6 7 8 9 10 11 12 20 0 3 0 98765 1000 20 18446744073709551615\n";

    #[test]
    fn stat_parses_with_any_name() {
        for name in ["sh", "", "a b", ") R 1 2 3", "((", "x\ny", ")"] {
            let text = format!("123 ({name}) {REST}");
            let stat = Stat { parent: 77, kernel_thread: false, start_time_ticks: 98_765 };
            assert_eq!(Stat::parse(text.as_bytes()), Some(stat), "{name:?}");
        }
        let kernel = b"2 (\xff\xfe) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 3 0 0\n";
        assert_eq!(Stat::parse(kernel), Some(Stat { parent: 0, kernel_thread: true, start_time_ticks: 3 }));
        assert_eq!(Stat::parse(b"12 (sh) S 1"), None);
        assert_eq!(Stat::parse(b""), None);
    }

    #[test]
    fn status_has_the_real_uid() {
        let text = b"Name:\tUid:\\nUid:\nPPid:\t1\nUid:\t1000\t0\t0\t0\nNSpid:\t300\t20\t1\n";
        assert_eq!(Status::parse(text), Some(Status { uid: 1000 }));
        assert_eq!(pid_levels(text), Some(3));
        assert_eq!(Status::parse(b"Name:\tx\n"), None);
    }

    #[test]
    fn comm_keeps_every_byte() {
        assert_eq!(parse_comm(b"nginx\n"), *b"nginx\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(parse_comm(b"a\nb\n\n"), *b"a\nb\n\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(parse_comm(b"\x1b[31m\xff\n"), *b"\x1b[31m\xff\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(parse_comm(b"kworker/u16:3-events_unbound\n"), *b"kworker/u16:3-e\0");
        assert_eq!(parse_comm(b""), [0; 16]);
    }

    #[test]
    fn this_process_is_read() {
        let mut buffer = Vec::new();
        read(rustix::fs::CWD, c"/proc/self/stat", &mut buffer).unwrap();
        let stat = Stat::parse(&buffer).unwrap();
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
        assert!(!stat.kernel_thread && stat.start_time_ticks > 0);
        read(rustix::fs::CWD, c"/proc/self/status", &mut buffer).unwrap();
        assert_eq!(Status::parse(&buffer).unwrap().uid, rustix::process::getuid().as_raw());
    }

    #[test]
    fn numbers_contain_only_digits() {
        assert_eq!(number::<u32>(b"42"), Some(42));
        for text in ["", "+1", "-1", "4294967296", "1 ", "0x1"] {
            assert_eq!(number::<u32>(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_a_panic(text in any::<Vec<u8>>()) {
            let _ = Stat::parse(&text);
            let _ = Status::parse(&text);
            let comm = parse_comm(&text);
            prop_assert_eq!(comm[15], 0);
        }
    }
}
