//! Whose a socket is, and how sure that is.

pub mod netns;
mod source;

pub use source::OwnerSource;
