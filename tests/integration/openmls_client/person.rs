//! One person's side of the conversation: openmls, and events in the specification's shapes.
//!
//! The credential's identity is the Nostr key. As MLS clients do, a person signs each group message and each gift wrap
//! with a new key.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use nostr_protocol::hex::to_hex;
use openmls::prelude::{
    BasicCredential, Ciphersuite, CredentialWithKey, KeyPackage, KeyPackageIn, LeafNodeParameters, Lifetime, MlsGroup,
    MlsGroupCreateConfig, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut, OpenMlsProvider as _,
    ProcessedMessageContent, ProtocolVersion, StagedWelcome,
    tls_codec::{DeserializeBytes as _, Serialize as _},
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use serde_json::{Value, json};

use super::nip44;
use crate::support::{Event, Keys, gateway, now};

const CIPHERSUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
const CIPHERSUITE_NAME: &str = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519";
const KEY_PACKAGE_LIFETIME_SECS: u64 = 86_400;

/// Someone with a Nostr key, an MLS signature key, and at most one group.
pub struct Person {
    /// The Nostr key.
    pub keys: Keys,
    provider: OpenMlsRustCrypto,
    signer: SignatureKeyPair,
    group: Option<Group>,
}

struct Group {
    /// The `h`.
    id: String,
    mls: MlsGroup,
}

/// Content of a group message after decryption.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A member's text.
    Said {
        /// The Nostr key that the sender's credential names.
        by: String,
        /// The text.
        text: String,
    },
    /// A commit, which has been applied.
    Commit,
}

/// A commit that adds people, and a Welcome for each of them.
pub struct Invitation {
    /// The 445 that holds the commit.
    pub commit: Event,
    /// The 1059s that hold the Welcomes, in the order of the invited people.
    pub welcomes: Vec<Event>,
}

impl Person {
    pub fn new() -> Self {
        let signer = SignatureKeyPair::new(CIPHERSUITE.signature_algorithm()).expect("a signature key");
        let provider = OpenMlsRustCrypto::default();
        signer.store(provider.storage()).expect("the key is kept");
        Self { keys: Keys::random(), provider, signer, group: None }
    }

    fn credential(&self) -> CredentialWithKey {
        let identity = self.keys.public().as_bytes().to_vec();
        let signature_key = self.signer.to_public_vec().into();
        CredentialWithKey { credential: BasicCredential::new(identity).into(), signature_key }
    }

    /// A fresh 443.
    pub fn key_package(&self) -> Event {
        let bundle = KeyPackage::builder()
            .key_package_lifetime(Lifetime::new(KEY_PACKAGE_LIFETIME_SECS))
            .build(CIPHERSUITE, &self.provider, &self.signer, self.credential())
            .expect("a KeyPackage");
        let package = bundle.key_package();
        let reference = package.hash_ref(self.provider.crypto()).expect("a reference");
        let bytes = package.tls_serialize_detached().expect("bytes");
        self.keys
            .event(443)
            .tag(["p", &self.keys.hex()])
            .tag(["cs", CIPHERSUITE_NAME])
            .tag(["kpr", &to_hex(reference.as_slice())])
            .tag(["exp", &package.life_time().not_after().to_string()])
            .content(BASE64_STANDARD.encode(bytes))
            .sign()
    }

    /// Founds an MLS group with this person as its only member; `id` is the group's `h` on Nostr.
    pub fn found(&mut self, id: &str) {
        let config = MlsGroupCreateConfig::builder().ciphersuite(CIPHERSUITE).use_ratchet_tree_extension(true).build();
        let mls = MlsGroup::new(&self.provider, &self.signer, &config, self.credential()).expect("a group");
        self.group = Some(Group { id: id.to_owned(), mls });
    }

    /// Adds the owners of these 443s. The commit takes effect with [`Self::merge`].
    pub fn invite(&mut self, packages: &[Event]) -> Invitation {
        let wanted: Vec<KeyPackage> = packages.iter().map(|event| self.read_key_package(event)).collect();
        let group = self.group.as_mut().expect("a member of a group");
        let (commit, welcome, _) = group.mls.add_members(&self.provider, &self.signer, &wanted).expect("a commit");
        let welcomes = packages.iter().map(|event| self.wrap(&welcome, event)).collect();
        Invitation { commit: self.group_message(&commit), welcomes }
    }

    /// Removes a member. The commit takes effect with [`Self::merge`].
    pub fn expel(&mut self, member: &Keys) -> Event {
        let group = self.group.as_mut().expect("a member of a group");
        let identity = member.public().as_bytes().to_vec();
        let leaf = group.mls.member_leaf_index(&BasicCredential::new(identity).into()).expect("a member");
        let (commit, _, _) = group.mls.remove_members(&self.provider, &self.signer, &[leaf]).expect("a commit");
        self.group_message(&commit)
    }

    /// Applies this person's last commit, once the relay has accepted it.
    pub fn merge(&mut self) {
        let group = self.group.as_mut().expect("a member of a group");
        group.mls.merge_pending_commit(&self.provider).expect("the commit is merged");
    }

    /// Renews this person's own keys. The commit takes effect with [`Self::merge`].
    pub fn update(&mut self) -> Event {
        let group = self.group.as_mut().expect("a member of a group");
        let update = group.mls.self_update(&self.provider, &self.signer, LeafNodeParameters::default());
        let commit = update.expect("a commit").into_commit();
        self.group_message(&commit)
    }

    /// Gives up this person's last commit, which the relay refused.
    pub fn abandon(&mut self) {
        let group = self.group.as_mut().expect("a member of a group");
        group.mls.clear_pending_commit(self.provider.storage()).expect("the commit is given up");
    }

    /// A 445 with this text.
    pub fn say(&mut self, text: &str) -> Event {
        let group = self.group.as_mut().expect("a member of a group");
        let message = group.mls.create_message(&self.provider, &self.signer, text.as_bytes()).expect("a message");
        self.group_message(&message)
    }

    /// Joins a group by a 1059.
    pub fn join(&mut self, wrap: &Event) {
        let rumor = self.unwrap(wrap);
        assert_eq!(rumor["kind"], 444);
        let message = read_message(rumor["content"].as_str().expect("a content"));
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else { panic!("the 444 holds no Welcome") };
        let config = MlsGroupJoinConfig::default();
        let staged = StagedWelcome::new_from_welcome(&self.provider, &config, welcome, None).expect("for us");
        let mls = staged.into_group(&self.provider).expect("a group");
        let id = tag(wrap, "h").expect("a Welcome names its group");
        self.group = Some(Group { id, mls });
    }

    /// Decrypts a 445 of another member.
    ///
    /// # Errors
    /// This client cannot decrypt it, for example because it was sent before the client joined.
    pub fn hear(&mut self, event: &Event) -> Result<Heard, String> {
        let group = self.group.as_mut().expect("a member of a group");
        assert_eq!(tag(event, "h").as_deref(), Some(group.id.as_str()), "a message of another group");
        let message = read_message(event.content()).try_into_protocol_message().map_err(|error| error.to_string())?;
        let processed = group.mls.process_message(&self.provider, message).map_err(|error| error.to_string())?;
        let by = BasicCredential::try_from(processed.credential().clone()).map_err(|error| error.to_string())?;
        match processed.into_content() {
            ProcessedMessageContent::ApplicationMessage(words) => {
                let text = String::from_utf8(words.into_bytes()).map_err(|error| error.to_string())?;
                Ok(Heard::Said { by: to_hex(by.identity()), text })
            }
            ProcessedMessageContent::StagedCommitMessage(commit) => {
                group.mls.merge_staged_commit(&self.provider, *commit).map_err(|error| error.to_string())?;
                Ok(Heard::Commit)
            }
            other => Err(format!("neither words nor a commit: {other:?}")),
        }
    }

    /// Whether MLS still counts this person among the group's members.
    pub fn is_in_group(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.mls.is_active())
    }

    /// The epoch of this person's own state.
    pub fn epoch(&self) -> u64 {
        self.group.as_ref().expect("a member of a group").mls.epoch().as_u64()
    }

    fn read_key_package(&self, event: &Event) -> KeyPackage {
        let bytes = BASE64_STANDARD.decode(event.content()).expect("base64");
        let package = KeyPackageIn::tls_deserialize_exact_bytes(&bytes).expect("a KeyPackage");
        package.validate(self.provider.crypto(), ProtocolVersion::Mls10).expect("a KeyPackage that verifies")
    }

    fn group_message(&self, message: &MlsMessageOut) -> Event {
        let group = self.group.as_ref().expect("a member of a group");
        let bytes = message.to_bytes().expect("bytes");
        gateway::message(&group.id)
            .tag(["k", &group.mls.epoch().as_u64().to_string()])
            .content(BASE64_STANDARD.encode(bytes))
            .sign()
    }

    /// Wraps a Welcome as a 444 in a seal in a 1059 (NIP-59), for the owner of a KeyPackage.
    fn wrap(&self, welcome: &MlsMessageOut, package: &Event) -> Event {
        let group = self.group.as_ref().expect("a member of a group");
        let owner = public_key(package);
        let rumor = json!({
            "pubkey": self.keys.hex(), "created_at": now(), "kind": 444, "tags": [],
            "content": BASE64_STANDARD.encode(welcome.to_bytes().expect("bytes")),
        });
        let seal = self.keys.event(13).content(nip44::encrypt(self.keys.pair(), &owner, &rumor.to_string())).sign();
        let by = Keys::random();
        by.event(1059)
            .tag(["p", &owner.to_hex()])
            .tag(["h", &group.id])
            .tag(["v", "gift.1"])
            .content(nip44::encrypt(by.pair(), &owner, &seal.0.to_string()))
            .sign()
    }

    fn unwrap(&self, wrap: &Event) -> Value {
        let open = |event: &Event| -> Value {
            let text = nip44::decrypt(self.keys.pair(), &public_key(event), event.content());
            serde_json::from_str(&text.expect("encrypted for us")).expect("JSON")
        };
        let seal = Event(open(wrap));
        assert_eq!(seal.kind(), 13);
        let rumor = open(&seal);
        assert_eq!(rumor["pubkey"], seal.0["pubkey"], "the seal's signer is the rumor's author");
        rumor
    }
}

fn read_message(content: &str) -> MlsMessageIn {
    let bytes = BASE64_STANDARD.decode(content).expect("base64");
    MlsMessageIn::tls_deserialize_exact_bytes(&bytes).expect("an MLSMessage")
}

fn public_key(event: &Event) -> nostr_protocol::PublicKey {
    let text = event.0["pubkey"].as_str().expect("a key");
    nostr_protocol::PublicKey::from_hex(text).expect("64 hex digits")
}

fn tag(event: &Event, name: &str) -> Option<String> {
    let tags = event.0["tags"].as_array()?;
    tags.iter().find(|tag| tag[0] == name)?[1].as_str().map(str::to_owned)
}
