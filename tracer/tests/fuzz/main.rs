//! Runs every decoder of external input on a fixed set of mutated samples. A decoder may return an error, but must not
//! panic, hang, or allocate more memory than the input justifies.

mod allocations;
mod decoders;
mod mutate;
mod recordings;
