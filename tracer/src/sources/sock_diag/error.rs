//! Why sockets could not be listed.

use std::{io, path::PathBuf};

/// Why sockets could not be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SockDiagError {
    /// The netlink socket could not be made.
    #[error(
        "cannot open the kernel's socket diagnostics (NETLINK_SOCK_DIAG): {0}; it needs CONFIG_INET_DIAG and a sandbox that allows AF_NETLINK"
    )]
    Open(#[source] io::Error),
    /// The request could not be sent.
    #[error("cannot ask the kernel for its TCP sockets: {0}; try again")]
    Request(#[source] io::Error),
    /// The answer could not be received.
    #[error("cannot read the kernel's list of TCP sockets: {0}; try again")]
    Receive(#[source] io::Error),
    /// The kernel stopped answering without saying that the list is complete.
    #[error("the kernel stopped sending its list of TCP sockets; try again")]
    Silent,
    /// The kernel cannot diagnose TCP sockets.
    #[error(
        "the kernel cannot list TCP sockets because its module tcp_diag is missing; run 'modprobe tcp_diag' or use a kernel with CONFIG_INET_TCP_DIAG"
    )]
    Unsupported,
    /// The kernel refused the request.
    #[error(
        "the kernel refused to list its TCP sockets: {0}; check for a security policy on netlink_tcpdiag_socket"
    )]
    Refused(#[source] io::Error),
    /// The file of a namespace could not be opened.
    #[error("cannot open the network namespace {}: {source}; check that its process or mount still exists and that you may read it", path.display())]
    OpenNamespace {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `setns` lacks privilege.
    #[error(
        "cannot enter another network namespace without CAP_SYS_ADMIN; run as root or grant the capability"
    )]
    EnterForbidden,
    /// The descriptor is no network namespace.
    #[error(
        "cannot enter the network namespace because the file is none; give a file such as /proc/PID/ns/net or /run/netns/NAME"
    )]
    NotNamespace,
    /// `setns` failed otherwise.
    #[error("cannot enter the network namespace: {0}; check that it still exists")]
    Enter(#[source] io::Error),
    /// The thread that enters the namespace could not be made.
    #[error("cannot start the thread that enters the network namespace: {0}; raise the limit on threads")]
    Thread(#[source] io::Error),
}
