//! Names from outside, escaped, and the identity of sockets.

use std::{borrow::Cow, fmt};

use tracer_core::{
    escape::{escape, is_plain, write_escaped},
    event::{ConnectionId, Process, SocketId},
};

use crate::{
    host::Cgroup,
    report::text::write::{Text, display_as_text},
};

/// The name of a process, escaped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessName(pub(crate) Process);

impl Text for ProcessName {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        // Each of the 16 bytes becomes four characters at most.
        write_escaped(self.0.name(), text)
    }
}

/// The identity of a socket: 16 hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct SocketText(pub(in crate::report) SocketId);

impl Text for SocketText {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        write_hexadecimal(self.0.0, text)
    }
}

/// The identity of a connection: 16 hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct ConnectionText(pub(in crate::report) ConnectionId);

impl Text for ConnectionText {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        write_hexadecimal(self.0.get(), text)
    }
}

/// Writes a number as 16 hexadecimal digits.
fn write_hexadecimal(number: u64, text: &mut impl fmt::Write) -> fmt::Result {
    let mut digits = number.to_be_bytes().map(|byte| [byte >> 4, byte & 15]);
    for digit in digits.as_flattened_mut() {
        *digit = b"0123456789abcdef"[usize::from(*digit)];
    }
    text.write_str(str::from_utf8(digits.as_flattened()).unwrap_or_default())
}

/// Text from outside, escaped as [`escape`] does.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct EscapedText<'a>(pub(in crate::report) &'a [u8]);

impl<'a> EscapedText<'a> {
    /// Returns the escaped text; allocates only if something has to be escaped.
    pub(in crate::report) fn to_text(self) -> Cow<'a, str> {
        match str::from_utf8(self.0) {
            Ok(text) if is_plain(self.0) => text.into(),
            _ => escape(self.0).into(),
        }
    }
}

/// The owner of a cgroup for people: the pod with its namespace, else the name of the container, else the first 12 digits of
/// its id.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) enum CgroupOwnerText<'a> {
    /// `NAMESPACE/POD`.
    Pod(&'a str),
    /// The container.
    Container(&'a str),
}

impl<'a> CgroupOwnerText<'a> {
    /// Returns the owner of a cgroup; `None` without a container and a named pod.
    pub(in crate::report) fn of(cgroup: Option<&'a Cgroup>) -> Option<Self> {
        let cgroup = cgroup?;
        if let Some(pod) = cgroup.pod() {
            return Some(Self::Pod(pod.qualified_pod()));
        }
        let id = || cgroup.owner.container.as_ref().map(|it| it.id.get(..12).unwrap_or(&it.id));
        cgroup.container_name().or_else(id).map(Self::Container)
    }

    /// Writes a space, `pod` or `container`, and the name.
    pub(in crate::report) fn append_to(self, text: &mut impl fmt::Write) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(text, " pod {name}"),
            Self::Container(name) => write!(text, " container {name}"),
        }
    }
}

impl Text for CgroupOwnerText<'_> {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        let (Self::Pod(name) | Self::Container(name)) = self;
        text.write_str(name)
    }
}

display_as_text!(ProcessName, SocketText);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_have_sixteen_digits() {
        assert_eq!(SocketText(SocketId(0x00ab_cdef_0123_4567)).to_string(), "00abcdef01234567");
    }

    #[test]
    fn the_longest_name_fits() {
        let process = Process { pid: 1, uid: 0, comm: [0xff; 16] };
        assert_eq!(ProcessName(process).to_string(), "\\xff".repeat(16));
    }

    #[test]
    fn people_see_names_rather_than_ids() {
        use std::sync::Arc;

        use crate::host::PodNames;

        let shown = |cgroup: &Cgroup| {
            let mut text = String::new();
            CgroupOwnerText::of(Some(cgroup)).unwrap().append_to(&mut text).unwrap();
            text
        };
        let cgroup = Cgroup::new(format!("/docker/{}", "0123456789abcdef".repeat(4)));
        assert_eq!(shown(&cgroup), " container 0123456789ab");
        cgroup.names.set_container("web".into());
        assert_eq!(shown(&cgroup), " container web");
        cgroup.names.set_pod(Arc::new(PodNames::new("shop", "web-0", None, "node").unwrap()));
        assert_eq!(shown(&cgroup), " pod shop/web-0");
        assert_eq!(
            shown(&Cgroup::new("/lxc.payload.a-long-machine-name".to_owned())),
            " container a-long-machine-name"
        );
        assert!(CgroupOwnerText::of(Some(&Cgroup::new("/system.slice/a.service".to_owned()))).is_none());
    }

    #[test]
    fn only_special_characters_need_an_allocation() {
        assert!(matches!(EscapedText(b"/system.slice").to_text(), Cow::Borrowed("/system.slice")));
        assert_eq!(EscapedText(b"a\\\n").to_text(), "a\\\\\\x0a");
    }
}
