//! Initial sequence numbers.

/// The initial sequence numbers of a connection (RFC 9293, section 3.4.1), as one of its ends sees them.
///
/// Both ends of a connection have the same two numbers, crosswise, whatever translates addresses between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InitialSequences {
    /// The sequence number of the SYN, or SYN-ACK, that this host sent.
    pub local: u32,
    /// The sequence number of the one that the peer sent; none if it did not arrive.
    pub remote: Option<u32>,
}
