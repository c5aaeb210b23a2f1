//! The decoder against bytes that a kernel sent, and dumps of this process's own sockets.

mod captured;
mod identity;
mod many;
mod queues;
mod support;
