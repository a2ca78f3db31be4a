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
const APP_DATA_DICTIONARY: u16 = 0x0006;
/// `last_resort_key_package` among the components of draft-ietf-mls-extensions.
const LAST_RESORT_COMPONENT: u16 = 0x0004;
/// The extensions that each client has, and that capabilities do not list (RFC 9420, section 7.2).
const DEFAULT_EXTENSIONS: std::ops::RangeInclusive<u16> = 1..=5;
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
    /// Whether it is marked as one of last resort: by the extension `last_resort`, or by the component of that name in
    /// an `app_data_dictionary` (draft-ietf-mls-extensions).
    pub last_resort: bool,
    init_key: &'a [u8],
    encryption_key: &'a [u8],
    /// The types of extensions that the leaf's capabilities list.
    supported: &'a [u8],
    leaf_extensions: Extensions<'a>,
    extensions: Extensions<'a>,
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
        let init_key = wire.opaque()?;
        let encryption_key = wire.opaque()?;
        let _signature_key = wire.opaque()?;
        let credential_type = wire.u16()?;
        let credential = wire.opaque()?;
        // Capabilities: versions, ciphersuites, extensions, proposals, credentials.
        let [_, _, supported, _, _] = [wire.opaque()?, wire.opaque()?, wire.opaque()?, wire.opaque()?, wire.opaque()?];
        if wire.u8()? != SOURCE_KEY_PACKAGE {
            return None;
        }
        let (not_before, not_after) = (wire.u64()?, wire.u64()?);
        let leaf_extensions = Extensions::read(wire.opaque()?)?;
        let _leaf_signature = wire.opaque()?;
        let extensions = Extensions::read(wire.opaque()?)?;
        let _signature = wire.opaque()?;
        let identity = (credential_type == BASIC_CREDENTIAL).then_some(credential);
        let last_resort = extensions.iter().any(|(of, data)| match of {
            LAST_RESORT => true,
            APP_DATA_DICTIONARY => has_component(data, LAST_RESORT_COMPONENT),
            _ => false,
        });
        wire.is_empty().then_some(Self {
            bytes,
            ciphersuite,
            identity,
            not_before,
            not_after,
            last_resort,
            init_key,
            encryption_key,
            supported,
            leaf_extensions,
            extensions,
        })
    }

    /// A fault that RFC 9420, sections 7.3, 10.1 and 13, refuses and that no signature shows, in words for the client.
    /// It is found for every ciphersuite. Values of GREASE (section 13.5) are no fault.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        if self.init_key == self.encryption_key {
            return Some("its init_key is the leaf's encryption_key; draw another one");
        }
        if self.not_after <= self.not_before {
            return Some("the leaf's lifetime ends before it begins");
        }
        if self.leaf_extensions.repeats() || self.extensions.repeats() {
            return Some("an extension is there twice; keep one of each type");
        }
        let is_supported = |wanted: u16| self.supported.chunks_exact(2).any(|listed| *listed == wanted.to_be_bytes());
        let is_known = |of: u16| DEFAULT_EXTENSIONS.contains(&of) || is_grease(of) || is_supported(of);
        if !self.leaf_extensions.iter().all(|(of, _)| is_known(of)) {
            return Some("an extension of the leaf is not in the leaf's capabilities; list its type there");
        }
        None
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

/// A list of extensions that was read to its last byte.
#[derive(Clone, Copy, Debug)]
struct Extensions<'a>(&'a [u8]);

impl<'a> Extensions<'a> {
    /// `None` for bytes that are no such list.
    fn read(list: &'a [u8]) -> Option<Self> {
        let mut wire = Wire(list);
        while !wire.is_empty() {
            wire.u16()?;
            wire.opaque()?;
        }
        Some(Self(list))
    }

    /// Each type with its data.
    fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut wire = Wire(self.0);
        std::iter::from_fn(move || Some((wire.u16()?, wire.opaque()?)))
    }

    /// Whether a type is there twice. The list is sorted for it, as a client chooses its length.
    fn repeats(self) -> bool {
        let mut types: Vec<u16> = self.iter().map(|(of, _)| of).collect();
        types.sort_unstable();
        types.windows(2).any(|pair| pair[0] == pair[1])
    }
}

/// Whether an `app_data_dictionary` has an entry for a component. Bytes that are no dictionary have none.
fn has_component(data: &[u8], wanted: u16) -> bool {
    let mut dictionary = Wire(data);
    let Some(entries) = dictionary.opaque().filter(|_| dictionary.is_empty()) else { return false };
    let mut wire = Wire(entries);
    let mut found = false;
    while !wire.is_empty() {
        let (Some(id), Some(_)) = (wire.u16(), wire.opaque()) else { return false };
        found |= id == wanted;
    }
    found
}

/// Whether a value is one of GREASE: `0x0a0a`, `0x1a1a` and so on to `0xeaea`.
const fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 12 == value >> 4 & 0xf && value != 0xfafa
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
