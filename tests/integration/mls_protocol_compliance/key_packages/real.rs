//! KeyPackages that openmls makes.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nostr_protocol::hex::to_hex;
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialWithKey, ExtensionType, KeyPackage, Lifetime,
    OpenMlsProvider as _, tls_codec::Serialize as _,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;

use crate::support::{Draft, Keys, now};

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// A KeyPackage and its owner.
pub struct Package {
    owner: Keys,
    pub bytes: Vec<u8>,
    reference: String,
}

impl Package {
    /// Makes a KeyPackage whose leaf ends in a day.
    pub fn new(owner: &Keys) -> Self {
        Self::until(owner, now() + 86_400)
    }

    /// Makes a KeyPackage whose leaf ends at `not_after`.
    pub fn until(owner: &Keys, not_after: u64) -> Self {
        Self::build(owner, owner.public().as_bytes(), not_after, false)
    }

    /// Makes a KeyPackage of this identity.
    pub fn with_identity(owner: &Keys, identity: &[u8]) -> Self {
        Self::build(owner, identity, now() + 86_400, false)
    }

    /// Makes a KeyPackage that is marked as last resort.
    pub fn of_last_resort(owner: &Keys) -> Self {
        Self::build(owner, owner.public().as_bytes(), now() + 86_400, true)
    }

    fn build(owner: &Keys, identity: &[u8], not_after: u64, last_resort: bool) -> Self {
        let provider = OpenMlsRustCrypto::default();
        let signer = SignatureKeyPair::new(SUITE.signature_algorithm()).expect("a signature key");
        let credential = CredentialWithKey {
            credential: BasicCredential::new(identity.to_vec()).into(),
            signature_key: signer.public().into(),
        };
        let capabilities = Capabilities::builder().extensions(vec![ExtensionType::LastResort]).build();
        let mut builder = KeyPackage::builder()
            .key_package_lifetime(Lifetime::init(not_after - 90_000, not_after))
            .leaf_node_capabilities(capabilities);
        if last_resort {
            builder = builder.mark_as_last_resort();
        }
        let bundle = builder.build(SUITE, &provider, &signer, credential).expect("a KeyPackage");
        let package = bundle.key_package();
        let reference = package.hash_ref(provider.crypto()).expect("a reference");
        Self {
            owner: owner.clone(),
            bytes: package.tls_serialize_detached().expect("bytes"),
            reference: to_hex(reference.as_slice()),
        }
    }

    /// The content of its event.
    pub fn base64(&self) -> String {
        base64(&self.bytes)
    }

    /// Its event, to be signed by its owner.
    pub fn draft(&self, kind: u16) -> Draft {
        self.signed_by(&self.owner, kind)
    }

    /// Its event, to be signed by any key.
    pub fn signed_by(&self, by: &Keys, kind: u16) -> Draft {
        by.event(kind).tag(["kpr", &self.reference]).content(self.base64())
    }
}

/// Base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
