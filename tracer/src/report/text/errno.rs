//! Names of the errors of TCP sockets.

use std::borrow::Cow;

/// Returns the name of an errno (`include/uapi/asm-generic/errno.h`), or `errno N` for one that TCP does not use.
pub(in crate::report) fn name(errno: u16) -> Cow<'static, str> {
    let name = match errno {
        13 => "EACCES",
        32 => "EPIPE",
        71 => "EPROTO",
        90 => "EMSGSIZE",
        92 => "ENOPROTOOPT",
        95 => "EOPNOTSUPP",
        100 => "ENETDOWN",
        101 => "ENETUNREACH",
        103 => "ECONNABORTED",
        104 => "ECONNRESET",
        110 => "ETIMEDOUT",
        111 => "ECONNREFUSED",
        112 => "EHOSTDOWN",
        113 => "EHOSTUNREACH",
        other => return format!("errno {other}").into(),
    };
    name.into()
}
