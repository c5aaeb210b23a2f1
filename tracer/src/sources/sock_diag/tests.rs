//! The decoder on captured messages, and dumps of this process's own sockets.

mod captured;
mod identity;
mod many;
mod queues;
mod support;
