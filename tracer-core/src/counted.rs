//! Counts with their nouns.

use std::fmt::Display;

/// Returns a count with its noun: `1 group`, `2 groups`, `2 processes`. `noun` is the singular, with a regular plural.
pub fn counted<N>(count: N, noun: &str) -> String
where
    N: Copy + Display + PartialEq + From<u8>,
{
    let ending = if noun.ends_with('s') { "es" } else { "s" };
    counted_as(count, noun, &format!("{noun}{ending}"))
}

/// Returns a count with words for one and for any other number: `1 handshake with its client`, `2 handshakes with their
/// clients`.
pub fn counted_as<N>(count: N, singular: &str, plural: &str) -> String
where
    N: Copy + Display + PartialEq + From<u8>,
{
    format!("{count} {}", if count == N::from(1) { singular } else { plural })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_of_a_thing_is_singular() {
        assert_eq!([0_u64, 1, 2].map(|count| counted(count, "group")), ["0 groups", "1 group", "2 groups"]);
        assert_eq!([1_usize, 3].map(|count| counted(count, "process")), ["1 process", "3 processes"]);
        assert_eq!([1_u8, 3].map(|count| counted_as(count, "entry", "entries")), ["1 entry", "3 entries"]);
    }
}
