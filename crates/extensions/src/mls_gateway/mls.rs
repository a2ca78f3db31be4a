//! MLS bytes that are in clear: the header of a message, and a KeyPackage with its checks.
//!
//! Source: RFC 9420, sections 2.1.2 (lengths), 5.2 (references), 6 (framing) and 10 (KeyPackage). The relay never
//! decrypts. This module reads all that is well-formed, ciphersuites and extensions that it does not know among them;
//! openmls checks the signatures, for the ciphersuites that it knows.

mod header;

use base64::{
    alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use nostr_protocol::UnixSecs;
use openmls::prelude::{
    Ciphersuite, KeyPackageIn, KeyPackageVerifyError, OpenMlsCrypto as _, ProtocolVersion,
    tls_codec::DeserializeBytes as _,
};
use openmls_rust_crypto::RustCrypto;
use sha2::{Sha256, Sha384, Sha512};

pub use self::header::{ContentType, HEADER_BYTES_MAX, Header, header_of_content};

/// Most bytes of a KeyPackage that are read; a longer one is taken for unreadable.
pub const KEY_PACKAGE_BYTES_MAX: usize = 64 * 1024;

/// Base64 with the standard alphabet, padded or not.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const MLS_1_0: u16 = 1;
const PUBLIC_MESSAGE: u16 = 1;
const PRIVATE_MESSAGE: u16 = 2;
/// Front of an MLSMessage that holds a KeyPackage: version 1, wire format 5.
const KEY_PACKAGE_MESSAGE: [u8; 4] = [0, 1, 0, 5];
const BASIC_CREDENTIAL: u16 = 1;
const LAST_RESORT: u16 = 0x000a;
const SOURCE_KEY_PACKAGE: u8 = 1;

/// A KeyPackage, read and not checked.
#[derive(Clone, Copy, Debug)]
pub struct KeyPackage<'a> {
    /// Its bytes, without an MLSMessage around them.
    pub bytes: &'a [u8],
    /// The number of its ciphersuite, known or not.
    pub ciphersuite: u16,
    /// The identity in a basic credential; `None` for a credential of another type.
    pub identity: Option<&'a [u8]>,
    /// Begin of the leaf's validity, in Unix seconds.
    pub not_before: UnixSecs,
    /// End of the leaf's validity, in Unix seconds.
    pub not_after: UnixSecs,
    /// Whether it carries the extension `last_resort`.
    pub last_resort: bool,
}

/// Result of checking a KeyPackage's signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signatures {
    /// Leaf and KeyPackage are signed by the leaf's key.
    Hold,
    /// They are not, or no client may use the KeyPackage for another reason; in openmls's words.
    Wrong(String),
    /// This relay cannot check signatures of the ciphersuite.
    NotCheckable,
}

impl<'a> KeyPackage<'a> {
    /// Reads a KeyPackage, or an MLSMessage that holds one, to its last byte.
    ///
    /// `None` for anything else, and for more than [`KEY_PACKAGE_BYTES_MAX`] bytes.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        // `0001 0005` may also begin a bare KeyPackage of ciphersuite 5.
        let inside = bytes.strip_prefix(&KEY_PACKAGE_MESSAGE);
        inside.and_then(Self::read_bare).or_else(|| Self::read_bare(bytes))
    }

    fn read_bare(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() > KEY_PACKAGE_BYTES_MAX {
            return None;
        }
        let mut wire = Wire(bytes);
        if wire.u16()? != MLS_1_0 {
            return None;
        }
        let ciphersuite = wire.u16()?;
        let _init_key = wire.opaque()?;
        let _encryption_key = wire.opaque()?;
        let _signature_key = wire.opaque()?;
        let credential_type = wire.u16()?;
        let credential = wire.opaque()?;
        // Capabilities: versions, ciphersuites, extensions, proposals, credentials.
        for _ in 0..5 {
            wire.opaque()?;
        }
        if wire.u8()? != SOURCE_KEY_PACKAGE {
            return None;
        }
        let (not_before, not_after) = (wire.u64()?, wire.u64()?);
        has_extension(wire.opaque()?, LAST_RESORT)?;
        let _leaf_signature = wire.opaque()?;
        let last_resort = has_extension(wire.opaque()?, LAST_RESORT)?;
        let _signature = wire.opaque()?;
        let identity = (credential_type == BASIC_CREDENTIAL).then_some(credential);
        wire.is_empty().then_some(Self { bytes, ciphersuite, identity, not_before, not_after, last_resort })
    }

    /// The KeyPackageRef (RFC 9420, section 5.2); `None` where the ciphersuite's hash is not known.
    #[must_use]
    pub fn reference(&self) -> Option<Vec<u8>> {
        match self.ciphersuite {
            1..=3 => Some(reference::<Sha256>(self.bytes)),
            4..=6 => Some(reference::<Sha512>(self.bytes)),
            7 => Some(reference::<Sha384>(self.bytes)),
            _ => None,
        }
    }

    /// Checks both signatures, and not the lifetime: that depends on a clock, and openmls has its own.
    #[must_use]
    pub fn check_signatures(&self) -> Signatures {
        let crypto = RustCrypto::default();
        let suite = Ciphersuite::try_from(self.ciphersuite).ok();
        if suite.is_none_or(|suite| crypto.supports(suite).is_err()) {
            return Signatures::NotCheckable;
        }
        let package = match KeyPackageIn::tls_deserialize_exact_bytes(self.bytes) {
            Ok(package) => package,
            Err(error) => return Signatures::Wrong(error.to_string()),
        };
        match package.validate(&crypto, ProtocolVersion::Mls10) {
            // Both errors come after the signatures. The extensions that a client supports are a matter between
            // clients.
            Ok(_) | Err(KeyPackageVerifyError::LifetimeError(_) | KeyPackageVerifyError::UnsupportedExtension) => {
                Signatures::Hold
            }
            Err(error) => Signatures::Wrong(error.to_string()),
        }
    }
}

/// `RefHash("MLS 1.0 KeyPackage Reference", bytes)`.
fn reference<H: sha2::Digest>(bytes: &[u8]) -> Vec<u8> {
    const LABEL: &[u8] = b"MLS 1.0 KeyPackage Reference";
    let mut hash = H::new();
    for part in [LABEL, bytes] {
        let (length, count) = put_length(part.len());
        hash.update(&length[..count]);
        hash.update(part);
    }
    hash.finalize().to_vec()
}

/// A length as RFC 9420, section 2.1.2, writes it, and the number of bytes that it takes; for lengths under 2^30.
fn put_length(length: usize) -> ([u8; 4], usize) {
    let length = length as u32;
    if length < 1 << 6 {
        ([length as u8, 0, 0, 0], 1)
    } else if length < 1 << 14 {
        let [_, _, high, low] = length.to_be_bytes();
        ([high | 0x40, low, 0, 0], 2)
    } else {
        let [first, rest @ ..] = length.to_be_bytes();
        ([first | 0x80, rest[0], rest[1], rest[2]], 4)
    }
}

/// Whether a list of extensions holds one of `wanted` type; `None` for bytes that are no such list.
fn has_extension(list: &[u8], wanted: u16) -> Option<bool> {
    let mut wire = Wire(list);
    let mut found = false;
    while !wire.is_empty() {
        found |= wire.u16()? == wanted;
        wire.opaque()?;
    }
    Some(found)
}

/// Bytes in the presentation language of RFC 9420, from the front; every read is `None` past the end.
struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.fixed().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.fixed().map(u16::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.fixed().map(u64::from_be_bytes)
    }

    /// `opaque x<V>`: a length in as few bytes as hold it (section 2.1.2), then so many bytes.
    fn opaque(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }

    /// A length in as few bytes as hold it.
    fn length(&mut self) -> Option<usize> {
        let first = self.u8()?;
        let low = usize::from(first & 0x3f);
        let length = match first >> 6 {
            0 => low,
            1 => low << 8 | usize::from(self.u8()?),
            2 => {
                let [a, b, c] = self.fixed()?;
                low << 24 | usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
            }
            _ => return None,
        };
        let shortest = match first >> 6 {
            0 => true,
            1 => length >= 1 << 6,
            _ => length >= 1 << 14,
        };
        shortest.then_some(length)
    }
}
