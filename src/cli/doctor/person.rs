//! A throw-away person: a Nostr key, an MLS client, and the events that they make.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use nostr_protocol::{Event, Kind, hex, sign::SecretKey};
use openmls::prelude::{
    BasicCredential, Ciphersuite, CredentialWithKey, KeyPackage, KeyPackageIn, Lifetime, MlsGroup,
    MlsGroupCreateConfig, OpenMlsProvider as _, ProtocolVersion,
    tls_codec::{DeserializeBytes as _, Serialize as _},
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use secp256k1::{Keypair, rand};

use super::super::{
    client::{Draft, Trouble, sign},
    moving::now,
};

const CIPHERSUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
const CIPHERSUITE_NAME: &str = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519";
/// Time, in seconds, for which the doctor's events are good; a relay from which they cannot be removed lets go of them.
const KEPT_SECS: u64 = 3_600;

/// See the module.
pub(super) struct Person {
    pub(super) keys: SecretKey,
    provider: OpenMlsRustCrypto,
    signer: SignatureKeyPair,
}

/// An MLS group, from its founder's side.
pub(super) struct Founded {
    mls: MlsGroup,
    /// The Welcome for the one who was invited.
    pub(super) welcome: String,
}

fn trouble(what: &str) -> impl Fn(String) -> Trouble {
    move |error| Trouble(format!("the doctor's own MLS client makes no {what}: {error}"))
}

impl Person {
    pub(super) fn new() -> Result<Self, Trouble> {
        let failed = |error: String| trouble("keys")(error);
        let provider = OpenMlsRustCrypto::default();
        let signer =
            SignatureKeyPair::new(CIPHERSUITE.signature_algorithm()).map_err(|it| failed(format!("{it:?}")))?;
        signer.store(provider.storage()).map_err(|it| failed(it.to_string()))?;
        Ok(Self { keys: throw_away(), provider, signer })
    }

    /// The Nostr key in hex.
    pub(super) fn hex(&self) -> String {
        self.keys.public().to_hex()
    }

    fn credential(&self) -> CredentialWithKey {
        let identity = self.keys.public().as_bytes().to_vec();
        let signature_key = self.signer.to_public_vec().into();
        CredentialWithKey { credential: BasicCredential::new(identity).into(), signature_key }
    }

    /// A KeyPackage, and its content in the event.
    pub(super) fn key_package(&self, kind: Kind) -> Result<Event, Trouble> {
        let failed = |error: String| trouble("KeyPackage")(error);
        let bundle = KeyPackage::builder()
            .key_package_lifetime(Lifetime::new(KEPT_SECS))
            .build(CIPHERSUITE, &self.provider, &self.signer, self.credential())
            .map_err(|it| failed(it.to_string()))?;
        let package = bundle.key_package();
        let reference = package.hash_ref(self.provider.crypto()).map_err(|it| failed(it.to_string()))?;
        let bytes = package.tls_serialize_detached().map_err(|it| failed(it.to_string()))?;
        let reference = hex::to_hex(reference.as_slice());
        let draft = Draft::new(kind).content(BASE64_STANDARD.encode(bytes));
        let draft = match kind {
            Kind::KEY_PACKAGE => draft
                .tag(&["p", &self.hex()])
                .tag(&["cs", CIPHERSUITE_NAME])
                .tag(&["kpr", &reference])
                .tag(&["exp", &(now() + KEPT_SECS).to_string()]),
            _ => draft
                .tag(&["d", "doctor"])
                .tag(&["encoding", "base64"])
                .tag(&["mls_protocol_version", "1.0"])
                .tag(&["mls_ciphersuite", "0x0001"])
                .tag(&["i", &reference])
                .tag(&["expiration", &(now() + KEPT_SECS).to_string()]),
        };
        sign(&draft, &self.keys)
    }

    /// Founds an MLS group and invites the owner of a KeyPackage's content.
    pub(super) fn found(&self, content: &str) -> Result<Founded, Trouble> {
        let failed = |error: String| trouble("group of that KeyPackage")(error);
        let bytes = BASE64_STANDARD.decode(content).map_err(|it| failed(it.to_string()))?;
        let package = KeyPackageIn::tls_deserialize_exact_bytes(&bytes).map_err(|it| failed(it.to_string()))?;
        let package =
            package.validate(self.provider.crypto(), ProtocolVersion::Mls10).map_err(|it| failed(it.to_string()))?;
        let config = MlsGroupCreateConfig::builder().ciphersuite(CIPHERSUITE).use_ratchet_tree_extension(true).build();
        let mut mls = MlsGroup::new(&self.provider, &self.signer, &config, self.credential())
            .map_err(|it| failed(it.to_string()))?;
        let (_, welcome, _) =
            mls.add_members(&self.provider, &self.signer, &[package]).map_err(|it| failed(it.to_string()))?;
        mls.merge_pending_commit(&self.provider).map_err(|it| failed(it.to_string()))?;
        let welcome = welcome.to_bytes().map_err(|it| failed(it.to_string()))?;
        Ok(Founded { mls, welcome: BASE64_STANDARD.encode(welcome) })
    }

    /// A message to a group, encrypted by MLS and signed by a throw-away key, as MLS clients do.
    pub(super) fn say(&self, group: &mut Founded, id: &str) -> Result<Event, Trouble> {
        let failed = |error: String| trouble("message")(error);
        let text = b"a message of rnostr doctor";
        let message =
            group.mls.create_message(&self.provider, &self.signer, text).map_err(|it| failed(it.to_string()))?;
        let bytes = message.to_bytes().map_err(|it| failed(it.to_string()))?;
        group_message(id, BASE64_STANDARD.encode(bytes))
    }

    /// A gift wrap (NIP-59) to a recipient, for a group or for none.
    pub(super) fn gift_wrap(recipient: &str, group: Option<&str>, content: &str) -> Result<Event, Trouble> {
        let mut draft = Draft::new(Kind::GIFT_WRAP).tag(&["p", recipient]).content(content);
        if let Some(group) = group {
            draft = draft.tag(&["h", group]);
        }
        sign(&draft.tag(&["expiration", &(now() + KEPT_SECS).to_string()]), &throw_away())
    }

    /// A Noise message (kind 446) to a recipient.
    pub(super) fn noise_message(&self, recipient: &str) -> Result<Event, Trouble> {
        let draft = Draft::new(Kind::NOISE_DM)
            .tag(&["p", recipient])
            .tag(&["v", "noise.1"])
            .tag(&["expiration", &(now() + KEPT_SECS).to_string()])
            .content("sealed by the doctor for nobody");
        sign(&draft, &self.keys)
    }

    /// The request by which everything of this person vanishes (NIP-62).
    pub(super) fn vanish(&self, relay: &str) -> Result<Event, Trouble> {
        let draft = Draft::new(Kind::VANISH).tag(&["relay", relay]).content("the doctor is done");
        sign(&draft, &self.keys)
    }
}

/// A message to a group by a throw-away key.
pub(super) fn group_message(id: &str, content: impl Into<String>) -> Result<Event, Trouble> {
    let draft = Draft::new(Kind::GROUP_MESSAGE)
        .tag(&["h", id])
        .tag(&["expiration", &(now() + KEPT_SECS).to_string()])
        .content(content);
    sign(&draft, &throw_away())
}

/// A new key pair.
pub(super) fn throw_away() -> SecretKey {
    Keypair::new(&mut rand::rng()).into()
}

/// A new id of a group that nobody can guess: 64 hex digits.
pub(super) fn random_id() -> String {
    throw_away().public().to_hex()
}
