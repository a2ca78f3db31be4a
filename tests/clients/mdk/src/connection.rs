//! Connection of nostr-sdk to the relay, with all received messages in order.
//!
//! nostr-sdk gives received messages as one stream of notifications. A [`Connection`] sorts them by subscription, so
//! that a test can wait for one event without losing another, and can assert that an event did *not* arrive.

use std::collections::{HashMap, HashSet, VecDeque};

use nostr::event::{Event, EventBuilder, EventId, Kind};
use nostr::filter::MatchEventOptions;
use nostr::message::RelayMessage;
use nostr::{Filter, Keys, RelayUrl, SubscriptionId};
use nostr_sdk::pool::prelude::{RelayNotification, ReqExitPolicy, SubscribeOptions};
use nostr_sdk::{Client, ClientOptions, Relay};
use tokio::sync::broadcast::Receiver;
use tokio::time::{Instant, timeout_at};

use crate::WAIT;

/// A connection and its received events.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    relay: Relay,
    notifications: Receiver<RelayNotification>,
    has_signer: bool,
    authentications: usize,
    subscriptions: HashMap<SubscriptionId, Received>,
}

/// Events and answers that one subscription has received.
#[derive(Debug)]
struct Received {
    filter: Filter,
    events: VecDeque<Event>,
    seen: HashSet<EventId>,
    at_end_of_stored: bool,
    closed: Option<String>,
}

impl Connection {
    /// Connects. With a signer, nostr-sdk answers the relay's NIP-42 challenge by itself. Without one, its automatic
    /// answer is switched off.
    pub async fn open(url: &RelayUrl, signer: Option<&Keys>) -> Self {
        let options = ClientOptions::new().automatic_authentication(signer.is_some());
        let mut builder = Client::builder().opts(options);
        if let Some(keys) = signer {
            builder = builder.signer(keys.clone());
        }
        let client = builder.build();
        client.add_relay(url).await.expect("the URL is valid");
        let relay = client.relay(url).await.expect("the relay was just added");
        let notifications = relay.notifications();
        relay.try_connect(WAIT).await.expect("the relay accepts the connection");
        Self {
            client,
            relay,
            notifications,
            has_signer: signer.is_some(),
            authentications: 0,
            subscriptions: HashMap::new(),
        }
    }

    /// Closes the connection, like an application that quits.
    pub async fn close(&self) {
        self.client.shutdown().await;
    }

    /// Waits until the relay has accepted this connection's key.
    pub async fn authenticated(&mut self) {
        self.wait_for("the relay to accept the key", |this| (this.authentications > 0).then_some(())).await;
    }

    /// Whether the relay has accepted a key on this connection, by all messages received so far.
    pub fn has_authenticated(&mut self) -> bool {
        self.take_what_has_arrived();
        self.authentications > 0
    }

    /// Publishes and waits for `OK`.
    ///
    /// # Panics
    /// If the relay refuses the event.
    pub async fn publish(&self, event: &Event) {
        if let Err(reason) = self.try_publish(event).await {
            panic!("a kind {} was refused: {reason}", event.kind);
        }
    }

    /// Publishes and waits for `OK`. When the relay asks for NIP-42, nostr-sdk authenticates and publishes again.
    ///
    /// # Errors
    /// The relay's reason.
    pub async fn try_publish(&self, event: &Event) -> Result<(), String> {
        match self.relay.send_event(event).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Opens a subscription and waits for its EOSE.
    ///
    /// # Panics
    /// If the relay closes it.
    pub async fn subscribe(&mut self, filter: Filter) -> SubscriptionId {
        let id = self.request(filter).await;
        self.wait_for("the end of stored events", |this| {
            let received = this.received(&id);
            if let Some(reason) = &received.closed {
                panic!("the subscription was closed: {reason}");
            }
            received.at_end_of_stored.then_some(())
        })
        .await;
        id
    }

    /// Opens a subscription that the relay must refuse, and returns the reason of its CLOSED.
    ///
    /// # Panics
    /// If the relay serves it.
    pub async fn refused(&mut self, filter: Filter) -> String {
        let id = self.request(filter).await;
        self.wait_for("the relay to close a subscription", |this| {
            let received = this.received(&id);
            assert!(
                !received.at_end_of_stored && received.events.is_empty(),
                "the relay served a subscription that it should have refused"
            );
            received.closed.clone()
        })
        .await
    }

    /// Fetches the stored events, in the order in which the relay sends them.
    pub async fn fetch(&mut self, filter: Filter) -> Vec<Event> {
        let id = self.subscribe(filter).await;
        self.relay.unsubscribe(&id).await.expect("the subscription is open");
        let received = self.subscriptions.remove(&id).expect("it was just opened");
        received.events.into()
    }

    /// Fetches the stored events by nostr-sdk's own method, which answers a `CLOSED auth-required:` by authenticating
    /// and asking again.
    pub async fn fetch_authenticating(&self, filter: Filter) -> Vec<Event> {
        self.relay
            .fetch_events(filter, WAIT, ReqExitPolicy::ExitOnEOSE)
            .await
            .expect("the relay answers after NIP-42")
            .into_iter()
            .collect()
    }

    /// Waits for the next event of a subscription, stored or live.
    pub async fn next_event(&mut self, id: &SubscriptionId, what: &str) -> Event {
        self.wait_for(what, |this| this.received(id).events.pop_front()).await
    }

    /// Number of received events of a subscription that no test has taken. See [`Connection::level_with`].
    pub fn waiting_events(&mut self, id: &SubscriptionId) -> usize {
        self.take_what_has_arrived();
        self.received(id).events.len()
    }

    /// Waits until this connection has received all events that the relay has delivered to it so far.
    ///
    /// A relay delivers to a connection in the order of acceptance, so a public note comes after all events that were
    /// accepted before it. An event that has not come when the note comes was not sent.
    pub async fn level_with(&mut self, other: &Connection) {
        let keys = Keys::generate();
        let notes = Filter::new().kind(Kind::TextNote).author(keys.public_key());
        let id = self.subscribe(notes).await;
        let note = EventBuilder::text_note("level").sign_with_keys(&keys).expect("a note can be signed");
        other.publish(&note).await;
        let arrived = self.next_event(&id, "a public note").await;
        assert_eq!(arrived.id, note.id);
    }

    /// Opens a subscription, with a signer only after NIP-42: nostr-sdk forgets a subscription whose `CLOSED` comes
    /// before nostr-sdk has registered the subscription.
    async fn request(&mut self, filter: Filter) -> SubscriptionId {
        if self.has_signer {
            self.authenticated().await;
        }
        let id = SubscriptionId::generate();
        let received = Received {
            filter: filter.clone(),
            events: VecDeque::new(),
            seen: HashSet::new(),
            at_end_of_stored: false,
            closed: None,
        };
        self.subscriptions.insert(id.clone(), received);
        self.relay
            .subscribe_with_id(id.clone(), filter, SubscribeOptions::default())
            .await
            .expect("the connection is open");
        id
    }

    fn received(&mut self, id: &SubscriptionId) -> &mut Received {
        self.subscriptions.get_mut(id).expect("the subscription was opened on this connection")
    }

    async fn wait_for<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + WAIT;
        loop {
            if let Some(result) = done(self) {
                return result;
            }
            let notification = timeout_at(deadline, self.notifications.recv())
                .await
                .unwrap_or_else(|_| panic!("waited {WAIT:?} without success for {what}"))
                .unwrap_or_else(|error| panic!("waiting for {what}: {error}"));
            self.take(notification);
        }
    }

    fn take_what_has_arrived(&mut self) {
        while let Ok(notification) = self.notifications.try_recv() {
            self.take(notification);
        }
    }

    fn take(&mut self, notification: RelayNotification) {
        let message = match notification {
            RelayNotification::Authenticated => {
                self.authentications += 1;
                return;
            }
            RelayNotification::AuthenticationFailed => panic!("the relay refused the key"),
            RelayNotification::Message { message } => message,
            _ => return,
        };
        match message {
            RelayMessage::Event { subscription_id, event } => {
                if let Some(received) = self.subscriptions.get_mut(&subscription_id) {
                    received.take(event.into_owned());
                }
            }
            RelayMessage::EndOfStoredEvents(id) => {
                if let Some(received) = self.subscriptions.get_mut(&id) {
                    received.at_end_of_stored = true;
                }
            }
            RelayMessage::Closed { subscription_id, message } => {
                if let Some(received) = self.subscriptions.get_mut(&subscription_id) {
                    received.closed = Some(message.into_owned());
                }
            }
            _ => {}
        }
    }
}

impl Received {
    fn take(&mut self, event: Event) {
        assert!(
            self.filter.match_event(&event, MatchEventOptions::new()),
            "the relay sent a kind {} that the filter does not ask for",
            event.kind
        );
        if self.seen.insert(event.id) {
            self.events.push_back(event);
        }
    }
}
