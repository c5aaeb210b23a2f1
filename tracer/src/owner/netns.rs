//! Network namespaces by name.

use std::{fs, os::linux::fs::MetadataExt as _};

/// Reads `self`, an inode, or the path of a namespace file such as `/run/netns/blue` or
/// `/proc/42/ns/net`, and gives the namespace's inode.
///
/// # Errors
///
/// A sentence with the text, the cause and the three forms.
pub fn parse(text: &str) -> Result<u32, String> {
    if let Ok(inode) = text.parse::<u32>() {
        return Ok(inode);
    }
    let path = if text == "self" { "/proc/self/ns/net" } else { text };
    let metadata = fs::metadata(path).map_err(|error| {
        format!("the network namespace `{text}` cannot be found ({error}): use a path such as /run/netns/blue, an inode, or self")
    })?;
    u32::try_from(metadata.st_ino()).map_err(|_| {
        format!("`{text}` is no network namespace: use a path such as /run/netns/blue, an inode, or self")
    })
}
