//! Errors of socket dumps.

use std::io;

/// Why a socket dump failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SockDiagError {
    /// The netlink socket could not be opened.
    #[error(
        "cannot open a NETLINK_SOCK_DIAG socket: {0}; use a kernel with CONFIG_INET_DIAG and a sandbox that allows AF_NETLINK"
    )]
    Open(#[source] io::Error),
    /// The request could not be sent.
    #[error("cannot send the socket dump request: {0}; try again")]
    Request(#[source] io::Error),
    /// The answer could not be received.
    #[error("cannot receive the socket dump: {0}; try again")]
    Receive(#[source] io::Error),
    /// The answer stopped before its end.
    #[error("the kernel stopped in the middle of the socket dump; try again")]
    Silent,
    /// The kernel does not support socket dumps of TCP.
    #[error(
        "the kernel cannot dump TCP sockets because its module tcp_diag is missing; run 'modprobe tcp_diag' or use a kernel with CONFIG_INET_TCP_DIAG"
    )]
    Unsupported,
    /// The kernel refused the request.
    #[error(
        "the kernel refused to dump its TCP sockets: {0}; check the security policy for netlink_tcpdiag_socket"
    )]
    Refused(#[source] io::Error),
    /// The privilege for `setns` is missing.
    #[error(
        "cannot enter another network namespace without CAP_SYS_ADMIN; run as root or grant the capability"
    )]
    EnterForbidden,
    /// The descriptor does not refer to a network namespace.
    #[error("the file is not a network namespace; give a file such as /proc/PID/ns/net or /run/netns/NAME")]
    NotNamespace,
    /// `setns` failed for another reason.
    #[error("cannot enter the network namespace: {0}; check that it still exists")]
    Enter(#[source] io::Error),
    /// The thread that enters the namespace could not be started.
    #[error("cannot start the thread that enters the network namespace: {0}; raise the limit on threads")]
    Thread(#[source] io::Error),
}
