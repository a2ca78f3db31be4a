//! NIP-44, version 2: the encryption of gift wraps and their seals.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chacha20::{
    ChaCha20,
    cipher::{KeyIvInit as _, StreamCipher as _},
};
use nostr_protocol::PublicKey;
use openmls_rust_crypto::RustCrypto;
use openmls_traits::{crypto::OpenMlsCrypto as _, random::OpenMlsRand as _, types::HashType};
use secp256k1::{Keypair, Parity, XOnlyPublicKey, ecdh::shared_secret_point};

const VERSION: u8 = 2;
const SALT: &[u8] = b"nip44-v2";
const NONCE_BYTES: usize = 32;
const MAC_BYTES: usize = 32;
const TEXT_BYTES_MAX: usize = 0xffff;

/// Encrypts `text`, of 1 to [`TEXT_BYTES_MAX`] bytes, by `from` for `to`.
pub fn encrypt(from: &Keypair, to: &PublicKey, text: &str) -> String {
    let nonce = RustCrypto::default().random_array().expect("random bytes");
    encrypt_with(from, to, text, nonce)
}

fn encrypt_with(from: &Keypair, to: &PublicKey, text: &str, nonce: [u8; NONCE_BYTES]) -> String {
    assert!((1..=TEXT_BYTES_MAX).contains(&text.len()), "a text of {} bytes", text.len());
    let mut padded = vec![0; 2 + padded_bytes(text.len())];
    padded[..2].copy_from_slice(&(text.len() as u16).to_be_bytes());
    padded[2..2 + text.len()].copy_from_slice(text.as_bytes());
    let keys = MessageKeys::new(from, to, &nonce);
    keys.cipher().apply_keystream(&mut padded);
    let mac = keys.mac(&nonce, &padded);
    BASE64_STANDARD.encode([&[VERSION][..], &nonce, &padded, &mac].concat())
}

/// Decrypts a payload that `from` encrypted for `by`; `None` for any other payload.
pub fn decrypt(by: &Keypair, from: &PublicKey, payload: &str) -> Option<String> {
    let bytes = BASE64_STANDARD.decode(payload).ok()?;
    let (version, rest) = bytes.split_first()?;
    let (nonce, rest) = rest.split_at_checked(NONCE_BYTES)?;
    let (text, mac) = rest.split_at_checked(rest.len().checked_sub(MAC_BYTES)?)?;
    let keys = MessageKeys::new(by, from, nonce);
    if *version != VERSION || keys.mac(nonce, text) != mac {
        return None;
    }
    let mut text = text.to_vec();
    keys.cipher().apply_keystream(&mut text);
    let length = usize::from(u16::from_be_bytes(text.get(..2)?.try_into().ok()?));
    if length == 0 || text.len() != 2 + padded_bytes(length) {
        return None;
    }
    String::from_utf8(text[2..2 + length].to_vec()).ok()
}

struct MessageKeys {
    key: [u8; 32],
    nonce: [u8; 12],
    mac: Vec<u8>,
}

impl MessageKeys {
    fn new(ours: &Keypair, theirs: &PublicKey, nonce: &[u8]) -> Self {
        let crypto = RustCrypto::default();
        let theirs = XOnlyPublicKey::from_byte_array(*theirs.as_bytes()).expect("a key on the curve");
        let point = shared_secret_point(&theirs.public_key(Parity::Even), &ours.secret_key());
        let conversation = crypto.hkdf_extract(HashType::Sha2_256, SALT, &point[..32]).expect("HKDF");
        let keys = crypto.hkdf_expand(HashType::Sha2_256, conversation.as_slice(), nonce, 76).expect("HKDF");
        let keys = keys.as_slice();
        let part = "a slice of this length";
        Self {
            key: keys[..32].try_into().expect(part),
            nonce: keys[32..44].try_into().expect(part),
            mac: keys[44..].to_vec(),
        }
    }

    fn cipher(&self) -> ChaCha20 {
        ChaCha20::new(&self.key.into(), &self.nonce.into())
    }

    fn mac(&self, nonce: &[u8], text: &[u8]) -> Vec<u8> {
        let message = [nonce, text].concat();
        let mac = RustCrypto::default().hmac(HashType::Sha2_256, &self.mac, &message);
        mac.expect("HMAC").as_slice().to_vec()
    }
}

fn padded_bytes(length: usize) -> usize {
    if length <= 32 {
        return 32;
    }
    let power = length.next_power_of_two();
    let chunk = if power <= 256 { 32 } else { power / 8 };
    length.div_ceil(chunk) * chunk
}

/// Compares with the first vector that NIP-44 names, for the keys 1 and 2, and with the padded lengths of nostr-tools.
#[test]
fn it_is_nip_44() {
    let pair = |n: u8| {
        let mut secret = [0; 32];
        secret[31] = n;
        Keypair::from_secret_bytes(secret).expect("a secret key")
    };
    let public = |pair: &Keypair| nostr_protocol::testing::public_key(pair);
    let mut nonce = [0; 32];
    nonce[31] = 1;
    let payload = "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABee0G5VSK0/9YypIObAtDKfYEAjD35uVkHyB0F4DwrcNaCXlCWZKa\
                   ArsGrY6M9wnuTMxWfp1RTN9Xga8no+kF5Vsb";
    assert_eq!(encrypt_with(&pair(1), &public(&pair(2)), "a", nonce), payload);
    assert_eq!(decrypt(&pair(2), &public(&pair(1)), payload).as_deref(), Some("a"));
    assert_eq!(decrypt(&pair(3), &public(&pair(1)), payload), None, "another key opens nothing");
    for (length, padded) in [(1, 32), (32, 32), (33, 64), (65, 96), (257, 320), (1024, 1024), (65_515, 65_536)] {
        assert_eq!(padded_bytes(length), padded, "{length}");
    }
}
