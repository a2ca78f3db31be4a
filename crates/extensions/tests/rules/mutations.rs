//! Mutations of real KeyPackages, as an attacker sends them: the parser neither panics nor takes another KeyPackage for
//! a good one.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nostr_extensions::mls_gateway::{
    key_package::describe,
    mls::{KeyPackage, Signatures},
};
use nostr_protocol::testing::{EventBuilder, keypair};

use crate::vectors::key_packages;

const MUTATIONS: usize = 200_000;
/// Mutations that still read as a KeyPackage, for each one whose signatures are checked.
const CHECKED_PART: usize = 200;
/// Mutations for each one that is read as the content of an event too.
const AS_EVENT_PART: usize = 50;

/// SplitMix64, so that a failure can be made again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(8) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => bytes.truncate(at),
        3 => drop(bytes.remove(at)),
        4 => bytes.insert(at, random.next() as u8),
        // Lengths of each form of RFC 9420, section 2.1.2, the unused one among them.
        5 => bytes[at] = [0x00, 0x3f, 0x40, 0x7f, 0x80, 0xbf, 0xc0, 0xff][random.below(8)],
        6 => {
            let end = (at + random.below(40)).min(bytes.len());
            let part = bytes[at..end].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, part);
        }
        _ => bytes.extend((0..random.below(40)).map(|_| random.next() as u8)),
    }
}

#[test]
fn two_hundred_thousand_mutations_are_read_or_not() {
    let originals = key_packages();
    assert!(originals.len() > 3, "the vectors hold KeyPackages");
    let mut random = Random(9_420);
    let (mut read, mut checked) = (0, 0);
    for n in 0..MUTATIONS {
        let original = &originals[n % originals.len()];
        let mut bytes = original.clone();
        for _ in 0..=random.below(3) {
            if !bytes.is_empty() {
                mutate(&mut bytes, &mut random);
            }
        }
        if n % AS_EVENT_PART == 0 {
            let event = EventBuilder::new(443).content(STANDARD.encode(&bytes)).event(&keypair("alice"));
            let _ = describe(event.view());
        }
        let Some(package) = KeyPackage::read(&bytes) else { continue };
        read += 1;
        let _ = (package.reference(), package.fault());
        if bytes != *original && read % CHECKED_PART == 0 {
            checked += 1;
            assert_ne!(package.check_signatures(), Signatures::Hold, "mutation {n}");
        }
    }
    assert!(read > 10_000 && checked > 50, "{read} mutations read as KeyPackages, {checked} were checked");
}
