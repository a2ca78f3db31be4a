//! Person in a group, who founds and joins groups, writes and reads messages, and changes the group.
//!
//! Each person, the sender included, applies a commit when the relay delivers it, and never before. When two commits of
//! one epoch race, MDK can then still go back to the better one: the earliest by `created_at` and then by id (Marmot's
//! MIP-03).

use std::collections::HashSet;
use std::time::Duration;

use mdk_core::groups::RatchetTreeInfo;
use mdk_core::prelude::*;
use mdk_memory_storage::MdkMemoryStorage;
use nostr::event::{Event, EventBuilder, EventId, Kind, UnsignedEvent};
use nostr::nips::nip59::UnwrappedGift;
use nostr::{Alphabet, Filter, PublicKey, SingleLetterTag, SubscriptionId, Timestamp};
use tokio::time::sleep;

use crate::connection::Connection;
use crate::person::Person;

/// A chat message inside MLS.
const CHAT: Kind = Kind::Custom(9);

/// The one group that a person of these tests is in.
#[derive(Debug)]
pub struct Membership {
    id: GroupId,
    subscription: Option<SubscriptionId>,
    processed: HashSet<EventId>,
    newest: Timestamp,
    heard: Vec<Heard>,
}

/// A chat message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    by: PublicKey,
    text: String,
}

/// MDK's result for a group message.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    /// A chat message of the MLS sender.
    Said(Words),
    /// A commit, which MDK has applied.
    Committed,
    /// A message that MDK cannot read: not for this member, of a commit that lost a race, or not decryptable.
    Unreadable,
}

/// A Welcome, taken out of its gift wrap.
#[derive(Debug)]
pub struct Invitation {
    wrap: EventId,
    welcome: UnsignedEvent,
}

/// Founds a group of Alice and the others through the relay, and subscribes all of them to it.
///
/// All must have [introduced](Person::introduce) themselves. `admins` may change the group.
pub async fn found_together(alice: &mut Person, others: &mut [&mut Person], admins: &[PublicKey]) {
    let invited = key_packages_of(alice, others).await;
    let welcomes = alice.found_group(&invited, admins);
    bring_in(alice, others, &invited, welcomes).await;
}

/// Fetches the others' KeyPackages from the relay, for Alice.
pub async fn key_packages_of(alice: &mut Person, others: &[&mut Person]) -> Vec<Event> {
    let mut packages = Vec::new();
    for other in others {
        packages.push(alice.key_package_of(other.public_key()).await);
    }
    packages
}

/// Sends Alice's Welcomes. The others join by them, and all subscribe to the group.
pub async fn bring_in(alice: &mut Person, others: &mut [&mut Person], invited: &[Event], welcomes: Vec<UnsignedEvent>) {
    alice.invite(invited, welcomes).await;
    alice.listen().await;
    for other in others {
        let invitation = other.invitation(&other.connection).await;
        other.join(invitation);
        other.listen().await;
    }
}

/// Waits until the clock is past the event's second.
///
/// The relay orders stored events by second and then by id, which is random. MDK gives up for good on a message that it
/// reads before the commit that the message needs. Within one second, chance would decide whether MDK reads both.
pub async fn later_second_than(event: &Event) {
    while Timestamp::now() <= event.created_at {
        sleep(Duration::from_millis(20)).await;
    }
}

impl Person {
    /// Founds a group in MDK alone. The Welcomes are in the order of the KeyPackages.
    pub fn found_group(&mut self, invited: &[Event], admins: &[PublicKey]) -> Vec<UnsignedEvent> {
        let config = NostrGroupConfigData::new(
            "friends".to_owned(),
            String::new(),
            None,
            None,
            None,
            vec![self.relay_url.clone()],
            admins.to_vec(),
        );
        let founded = self
            .mdk
            .create_group(&self.public_key(), invited.to_vec(), config)
            .expect("MDK founds a group with the relay's KeyPackages");
        self.membership = Some(Membership::new(founded.group.mls_group_id));
        founded.welcome_rumors
    }

    /// Sends each Welcome, gift wrapped, to the owner of its KeyPackage.
    pub async fn invite(&self, invited: &[Event], welcomes: Vec<UnsignedEvent>) {
        assert_eq!(invited.len(), welcomes.len());
        for (key_package, welcome) in invited.iter().zip(welcomes) {
            let wrap = EventBuilder::gift_wrap(&self.keys, &key_package.pubkey, welcome, [])
                .await
                .expect("a Welcome can be wrapped");
            self.connection.publish(&wrap).await;
        }
    }

    /// Fetches this person's one Welcome. `inbox` must have the person's key, because only recipients get gift wraps.
    pub async fn invitation(&self, inbox: &Connection) -> Invitation {
        let filter = Filter::new().kind(Kind::GiftWrap).pubkey(self.public_key());
        let wraps = inbox.fetch_authenticating(filter).await;
        let [wrap] = wraps.as_slice() else {
            panic!("{} has {} gift wraps, not one", self.name, wraps.len());
        };
        let gift = UnwrappedGift::from_gift_wrap(&self.keys, wrap).await.expect("the wrap is for this person");
        Invitation { wrap: wrap.id, welcome: gift.rumor }
    }

    /// Joins the group of a Welcome.
    pub fn join(&mut self, invitation: Invitation) {
        let welcome = self.mdk.process_welcome(&invitation.wrap, &invitation.welcome).expect("MDK reads the Welcome");
        self.mdk.accept_welcome(&welcome).expect("MDK joins by the Welcome");
        self.membership = Some(Membership::new(welcome.mls_group_id));
    }

    /// Subscribes to the group's messages, stored and live.
    pub async fn listen(&mut self) {
        let filter = self.messages_filter();
        let subscription = self.connection.subscribe(filter).await;
        self.membership_mut().subscription = Some(subscription);
    }

    /// Sends a message to the group, signed by a key that is used once.
    pub async fn say(&self, text: &str) -> Words {
        let event = self.message(text);
        self.connection.publish(&event).await;
        Words { by: self.public_key(), text: text.to_owned() }
    }

    /// Encrypts a message to the group, without sending it.
    pub fn message(&self, text: &str) -> Event {
        let rumor = EventBuilder::new(CHAT, text).build(self.public_key());
        let event = self.mdk.create_message(self.group_id(), rumor, None).expect("MDK encrypts to the group");
        assert_ne!(event.pubkey, self.public_key());
        event
    }

    /// Reads until these words have been read, which may be this person's own.
    pub async fn hear(&mut self, words: &Words) {
        let wanted = Heard::Said(words.clone());
        while !self.membership().heard.contains(&wanted) {
            self.read_next(&format!("{:?}", words.text)).await;
        }
    }

    /// Publishes a commit, and waits until the relay has delivered it and MDK has applied it.
    pub async fn commit(&mut self, change: UpdateGroupResult) -> Event {
        let epoch = self.group().epoch;
        let event = change.evolution_event;
        self.connection.publish(&event).await;
        self.read_until_delivered(&[event.id]).await;
        assert_eq!(self.group().epoch, epoch + 1);
        event
    }

    /// Reads until all these messages have been delivered, readable or not.
    pub async fn read_until_delivered(&mut self, ids: &[EventId]) {
        while !ids.iter().all(|id| self.membership().processed.contains(id)) {
            self.read_next("group messages to be delivered").await;
        }
    }

    /// Fetches the messages since the newest known one, and reads them in Marmot's order: `created_at`, then id.
    ///
    /// Unreadable messages are read again until that no longer helps, because MDK can read some of them after a commit.
    pub async fn catch_up(&mut self) {
        let since = self.messages_filter().since(self.membership().newest);
        let mut missed = self.connection.fetch(since).await;
        missed.retain(|event| !self.membership().processed.contains(&event.id));
        missed.sort_by_key(|event| (event.created_at, event.id));
        loop {
            let before = missed.len();
            missed.retain(|event| self.read(event) == Heard::Unreadable);
            if missed.is_empty() || missed.len() == before {
                break;
            }
        }
    }

    /// All chat messages, in the order in which this person read them.
    pub fn words(&self) -> Vec<&str> {
        let heard = self.membership().heard.iter();
        heard
            .filter_map(|heard| match heard {
                Heard::Said(words) => Some(words.text.as_str()),
                Heard::Committed | Heard::Unreadable => None,
            })
            .collect()
    }

    /// The MLS group.
    pub fn group_id(&self) -> &GroupId {
        &self.membership().id
    }

    /// The group's `h` value on Nostr, 64 lower-case hex digits.
    pub fn nostr_group_id(&self) -> String {
        let id = self.group().nostr_group_id;
        id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The filter of the group's messages.
    pub fn messages_filter(&self) -> Filter {
        Filter::new()
            .kind(Kind::MlsGroupMessage)
            .custom_tag(SingleLetterTag::lowercase(Alphabet::H), self.nostr_group_id())
    }

    /// MDK's record of the group.
    pub fn group(&self) -> group_types::Group {
        self.mdk.get_group(self.group_id()).expect("MDK reads its store").expect("MDK knows the group")
    }

    /// The epoch, the name and the tree, which all members must agree on.
    pub fn state(&self) -> (u64, String, String) {
        let group = self.group();
        let RatchetTreeInfo { tree_hash, .. } =
            self.mdk.get_ratchet_tree_info(self.group_id()).expect("MDK has the group's tree");
        (group.epoch, group.name, tree_hash)
    }

    /// Number of received group messages that this person has not read.
    pub fn unread(&mut self) -> usize {
        let subscription = self.subscription();
        self.connection.waiting_events(&subscription)
    }

    async fn read_next(&mut self, what: &str) {
        let subscription = self.subscription();
        let what = format!("{what}, for {}", self.name);
        let event = self.connection.next_event(&subscription, &what).await;
        self.read(&event);
    }

    fn read(&mut self, event: &Event) -> Heard {
        let heard = process(&self.mdk, event);
        let membership = self.membership_mut();
        membership.processed.insert(event.id);
        membership.newest = membership.newest.max(event.created_at);
        membership.heard.push(heard.clone());
        heard
    }

    fn subscription(&self) -> SubscriptionId {
        let subscription = &self.membership().subscription;
        subscription.clone().expect("this person listens")
    }

    fn membership(&self) -> &Membership {
        self.membership.as_ref().expect("this person is in a group")
    }

    fn membership_mut(&mut self) -> &mut Membership {
        self.membership.as_mut().expect("this person is in a group")
    }
}

impl Membership {
    fn new(id: GroupId) -> Self {
        Self { id, subscription: None, processed: HashSet::new(), newest: Timestamp::zero(), heard: Vec::new() }
    }
}

fn process(mdk: &MDK<MdkMemoryStorage>, event: &Event) -> Heard {
    match mdk.process_message(event) {
        Ok(MessageProcessingResult::ApplicationMessage(message)) => {
            Heard::Said(Words { by: message.pubkey, text: message.content })
        }
        Ok(MessageProcessingResult::Commit { .. }) => Heard::Committed,
        Ok(MessageProcessingResult::Unprocessable { .. } | MessageProcessingResult::PreviouslyFailed) | Err(_) => {
            Heard::Unreadable
        }
        Ok(other) => panic!("no one here sends proposals: {other:?}"),
    }
}
