//! Client of nostr-sdk and MDK. `docs/clients.md` shows each function, and `tests/guide.rs` runs them.

use std::error::Error;
use std::time::Duration;

use mdk_core::MDK;
use mdk_core::key_packages::KeyPackageEventData;
use mdk_core::prelude::*;
use mdk_memory_storage::MdkMemoryStorage;
use nostr::event::{Event, EventBuilder, Kind};
use nostr::nips::nip59::UnwrappedGift;
use nostr::{Alphabet, Filter, Keys, RelayUrl, SingleLetterTag, SubscriptionId, Timestamp};
use nostr_sdk::{Client, RelayPoolNotification};

/// A client whose error is told to a person.
type Told<T> = Result<T, Box<dyn Error>>;
/// The MLS state of a person. An application keeps it in MDK's SQLite storage.
type Mls = MDK<MdkMemoryStorage>;

/// Longest wait for an answer.
const WAIT: Duration = Duration::from_secs(10);
/// Kind of an addressable KeyPackage.
const KEY_PACKAGE: Kind = Kind::Custom(30443);
/// Kind of a chat message inside MLS.
const CHAT: Kind = Kind::Custom(9);

/// Connects with a key. nostr-sdk answers the relay's challenge by it, on each connection.
pub async fn connect(url: &RelayUrl, keys: &Keys) -> Told<Client> {
    let client = Client::new(keys.clone());
    client.add_relay(url).await?;
    client.try_connect(WAIT).await;
    Ok(client)
}

/// Publishes an event. The error is the relay's reason, as `restricted: …`.
pub async fn publish(client: &Client, event: &Event) -> Told<()> {
    let answers = client.send_event(event).await?;
    match answers.failed.into_values().next() {
        None => Ok(()),
        Some(reason) => Err(reason.into()),
    }
}

/// The filter of a group's messages.
pub fn messages_of(group: &str) -> Filter {
    Filter::new().kind(Kind::MlsGroupMessage).custom_tag(SingleLetterTag::lowercase(Alphabet::H), group)
}

/// Opens a subscription to the messages that come from now on.
pub async fn follow(client: &Client, group: &str) -> Told<SubscriptionId> {
    let filter = messages_of(group).limit(0);
    Ok(client.subscribe(filter, None).await?.val)
}

/// Waits for the next event of a subscription. Subscribe to `client.notifications()` before you call [`follow`].
pub async fn next(
    notifications: &mut tokio::sync::broadcast::Receiver<RelayPoolNotification>,
    following: &SubscriptionId,
) -> Told<Event> {
    loop {
        match notifications.recv().await? {
            RelayPoolNotification::Event { subscription_id, event, .. } if subscription_id == *following => {
                return Ok(*event);
            }
            RelayPoolNotification::Shutdown => return Err("the client was shut down".into()),
            _ => {}
        }
    }
}

/// Fetches the messages since a time, the earliest first, and by id within a second, as Marmot orders them.
pub async fn catch_up(client: &Client, group: &str, since: Timestamp) -> Told<Vec<Event>> {
    let found = client.fetch_events(messages_of(group).since(since), WAIT).await?;
    let mut events: Vec<Event> = found.into_iter().collect();
    events.sort_by_key(|event| (event.created_at, event.id));
    Ok(events)
}

/// Publishes a KeyPackage. MDK keeps its secrets, and a later one replaces it.
pub async fn publish_key_package(client: &Client, mdk: &Mls, keys: &Keys, relay: &RelayUrl) -> Told<()> {
    let KeyPackageEventData { content, tags_30443, .. } =
        mdk.create_key_package_for_event(&keys.public_key(), [relay.clone()])?;
    let event = EventBuilder::new(KEY_PACKAGE, content).tags(tags_30443).sign_with_keys(keys)?;
    publish(client, &event).await
}

/// Founds a group with the owner of a KeyPackage, and sends the Welcome in a gift wrap.
pub async fn found_group(client: &Client, mdk: &Mls, keys: &Keys, invited: Event, relay: RelayUrl) -> Told<GroupId> {
    let owner = invited.pubkey;
    let admins = vec![keys.public_key()];
    let settings = NostrGroupConfigData::new("team".to_owned(), String::new(), None, None, None, vec![relay], admins);
    let founded = mdk.create_group(&keys.public_key(), vec![invited], settings)?;
    for welcome in founded.welcome_rumors {
        let wrap = EventBuilder::gift_wrap(keys, &owner, welcome, []).await?;
        publish(client, &wrap).await?;
    }
    Ok(founded.group.mls_group_id)
}

/// Joins by the Welcomes in the inbox. Gift wraps are for their recipient alone, so the client authenticates here.
pub async fn join(client: &Client, mdk: &Mls, keys: &Keys) -> Told<Option<GroupId>> {
    let inbox = Filter::new().kind(Kind::GiftWrap).pubkey(keys.public_key());
    let mut joined = None;
    for wrap in client.fetch_events(inbox, WAIT).await? {
        let Ok(gift) = UnwrappedGift::from_gift_wrap(keys, &wrap).await else { continue };
        let Ok(welcome) = mdk.process_welcome(&wrap.id, &gift.rumor) else { continue };
        mdk.accept_welcome(&welcome)?;
        joined = Some(welcome.mls_group_id);
    }
    Ok(joined)
}

/// The group's `h`: 64 hex digits, by which clients of Marmot read and write without AUTH.
pub fn h(mdk: &Mls, group: &GroupId) -> Told<String> {
    let group = mdk.get_group(group)?.ok_or("this group is not here")?;
    Ok(group.nostr_group_id.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Sends a message. MDK signs it by a key that is used once.
pub async fn say(client: &Client, mdk: &Mls, keys: &Keys, group: &GroupId, text: &str) -> Told<()> {
    let rumor = EventBuilder::new(CHAT, text).build(keys.public_key());
    let event = mdk.create_message(group, rumor, None)?;
    publish(client, &event).await
}

/// The text of a message, or nothing for a commit and for a message that this member cannot read.
pub fn read(mdk: &Mls, event: &Event) -> Option<String> {
    match mdk.process_message(event) {
        Ok(MessageProcessingResult::ApplicationMessage(message)) => Some(message.content),
        Ok(_) | Err(_) => None,
    }
}
