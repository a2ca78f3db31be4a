//! The form of a negentropy message (NIP-77, "Negentropy Protocol V1").
//!
//! The library reads a number that is cut off as if it ended there, so a message that breaks off within one would be
//! answered as if it said that both sets are equal. Neither side of a reconciliation hands such a message to it.

/// First byte of a message of version 1.
const VERSION: u8 = 0x61;
/// Most bytes of a number: seven bits each, of 64.
const NUMBER_BYTES_MAX: usize = 10;
/// Bytes of a fingerprint.
const FINGERPRINT_BYTES: usize = 16;
/// Bytes of an id.
const ID_BYTES: usize = 32;

/// Returns whether each range of a message of version 1 is there to its end. Any other version is whole: its answer
/// names the version that this relay speaks.
#[must_use]
pub fn is_whole(message: &[u8]) -> bool {
    match message.split_first() {
        None => false,
        Some((&VERSION, ranges)) => ranges_are_whole(ranges).is_some(),
        Some(_) => true,
    }
}

fn ranges_are_whole(mut rest: &[u8]) -> Option<()> {
    while !rest.is_empty() {
        let _time = number(&mut rest)?;
        let id_bytes = usize::try_from(number(&mut rest)?).ok().filter(|bytes| *bytes <= ID_BYTES)?;
        skip(&mut rest, id_bytes)?;
        match number(&mut rest)? {
            0 => {}
            1 => skip(&mut rest, FINGERPRINT_BYTES)?,
            2 => {
                let ids = usize::try_from(number(&mut rest)?).ok()?;
                skip(&mut rest, ids.checked_mul(ID_BYTES)?)?;
            }
            _ => return None,
        }
    }
    Some(())
}

/// Reads a number: the highest seven bits first, and a high bit on each byte but the last.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for (index, byte) in rest.iter().take(NUMBER_BYTES_MAX).enumerate() {
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Some(value);
        }
    }
    None
}

fn skip(rest: &mut &[u8], bytes: usize) -> Option<()> {
    *rest = rest.get(bytes..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex::parse_any;

    fn is_whole_hex(hex: &str) -> bool {
        is_whole(&parse_any(hex.as_bytes()).expect("hex"))
    }

    /// Three ranges: a fingerprint up to a bound with a prefix of an id, one that is passed over, and two ids.
    #[test]
    fn a_message_that_breaks_off_within_a_range_is_not_whole() {
        let message = format!("61 8300 02abcd 01 {} 05 00 00 00 00 02 02 {}", "22".repeat(16), "33".repeat(64));
        let message = parse_any(message.replace(' ', "").as_bytes()).expect("hex");
        let whole: Vec<usize> = (0..=message.len()).filter(|end| is_whole(&message[..*end])).collect();
        assert_eq!(whole, [1, 23, 26, message.len()], "the version alone, and the end of each range");
        for broken in ["61ff", "6101", "610000", "61000003", "610021", "61ffffffffffffffffffff7f0000"] {
            assert!(!is_whole_hex(broken), "{broken}");
        }
        assert!(is_whole_hex("62ff"), "another version");
    }
}
