//! Names of the errors that a TCP connection ends with.

/// The name of an errno as in `include/uapi/asm-generic/errno.h`; its number for one that TCP does not use.
pub(super) fn name(errno: u16) -> std::borrow::Cow<'static, str> {
    match errno {
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
    }
    .into()
}
