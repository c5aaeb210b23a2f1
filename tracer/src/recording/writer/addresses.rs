//! The address dictionaries of a batch.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
};

use hashbrown::HashMap;

use crate::recording::writer::{batches::Batches, interner::Dictionary};

/// Like [`Interner`](super::interner::Interner), but with one hash table per address family, because small keys hash
/// faster.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    last: Option<(IpAddr, i32)>,
    four: HashMap<u32, i32, foldhash::fast::FixedState>,
    six: HashMap<u128, i32, foldhash::fast::FixedState>,
    dictionary: Dictionary,
}

impl Addresses {
    /// Returns the index of an address, and adds it if it is new.
    pub(super) fn index(&mut self, address: IpAddr) -> i32 {
        let Self { last, four, six, dictionary } = self;
        // Consecutive rows often have the same address.
        if let Some((known, index)) = *last
            && known == address
        {
            return index;
        }
        let index = match address {
            IpAddr::V4(address) => {
                *four.entry(address.to_bits()).or_insert_with(|| dictionary.push(|to| write(address, to)))
            }
            IpAddr::V6(address) => *six.entry(address.to_bits()).or_insert_with(|| {
                // A write into memory cannot fail.
                dictionary.push(|to| drop(write!(to, "{address}")))
            }),
        };
        *last = Some((address, index));
        index
    }

    /// Writes the dictionary if it has changed, and clears it.
    pub(super) fn write(&mut self, id: i64, to: &mut Batches, out: &mut Vec<u8>) {
        self.last = None;
        self.four.clear();
        self.six.clear();
        self.dictionary.write(id, to, out);
    }
}

/// Writes an address like its `Display`, several times faster.
fn write(address: Ipv4Addr, to: &mut Vec<u8>) {
    let mut text = [b'.'; 16];
    let mut end = 0;
    for octet in address.octets() {
        for (least, digit) in [(100, octet / 100), (10, octet / 10 % 10), (0, octet % 10)] {
            if octet >= least {
                text[end] = b'0' + digit;
                end += 1;
            }
        }
        end += 1;
    }
    to.extend_from_slice(&text[..end - 1]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_is_written_like_in_the_standard_library() {
        for octet in 0..=u8::MAX {
            let address = Ipv4Addr::new(octet, 255 - octet, octet ^ 0x55, octet / 3);
            let mut text = Vec::new();
            write(address, &mut text);
            assert_eq!(String::from_utf8(text), Ok(address.to_string()));
        }
    }

    #[test]
    fn a_mapped_address_has_its_own_index() {
        let four: IpAddr = "192.0.2.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let mut addresses = Addresses::default();
        assert_eq!([four, mapped, four, mapped].map(|it| addresses.index(it)), [0, 1, 0, 1]);
    }
}
