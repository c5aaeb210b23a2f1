//! Every decoder of bytes from outside against mutations of real samples: the same ones at every run, a fixed
//! count of them. A decoder may refuse; it must not panic, hang, or take memory that the bytes do not back.

mod allocations;
mod decoders;
mod mutate;
mod recordings;
