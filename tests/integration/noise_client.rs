//! A Noise conversation by snow: handshake (XX) and messages as kind 446 between two people. One of them is offline for
//! a while; a third person and a client without a key see none of it.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;
use snow::{Builder, HandshakeState, StatelessTransportState};

use crate::{
    hidden::{self, Expected},
    support::{Client, Event, Keys, TestRelay, rest::Rest},
};

const CHACHA: &str = "Noise_XX_25519_ChaChaPoly_BLAKE2s";
/// The cipher of the specification's "XChaCha20-Poly1305 with Curve25519 key exchange".
const XCHACHA: &str = "Noise_XX_25519_XChaChaPoly_BLAKE2s";
const MESSAGE_BYTES_MAX: usize = 65_535;

#[tokio::test]
async fn two_people_talk_and_nobody_else_sees_it_with_auth() {
    two_people_talk_and_nobody_else_sees_it(CHACHA, true).await;
}

#[tokio::test]
async fn two_people_talk_and_nobody_else_sees_it_without_auth() {
    two_people_talk_and_nobody_else_sees_it(CHACHA, false).await;
}

#[tokio::test]
async fn two_people_talk_with_xchacha20() {
    two_people_talk_and_nobody_else_sees_it(XCHACHA, true).await;
}

async fn two_people_talk_and_nobody_else_sees_it(protocol: &str, auth: bool) {
    let relay = TestRelay::start(|config| config.auth.enabled = auth).await;
    let mut outside = Outside::arrive(&relay).await;
    let (mut alice, mut bob) = (Person::new(), Person::new());
    let mut sent = Vec::new();
    let mut at = online(&relay, &alice).await;

    // Bob is away when the handshake begins.
    alice.begin(protocol);
    bob.expect(protocol);
    sent.push(publish(&mut at, alice.handshake(&bob, "alice")).await);
    let mut bt = online(&relay, &bob).await;
    let waiting = bt.req("stored", &[json!({"kinds": [446]})]).await.expect("a recipient reads");
    assert_eq!(waiting, sent);
    assert_eq!(bob.read_handshake(&waiting[0]), "alice");
    sent.push(publish(&mut bt, bob.handshake(&alice, "bob")).await);
    assert_eq!(alice.read_handshake(&at.next_event("446").await), "bob");
    sent.push(publish(&mut at, alice.handshake(&bob, "alice again")).await);
    assert_eq!(bob.read_handshake(&bt.next_event("446").await), "alice again");
    assert_eq!(alice.open(), bob.static_key.public);
    assert_eq!(bob.open(), alice.static_key.public);

    for text in ["the first words", "the second"] {
        sent.push(publish(&mut at, alice.say(&bob, text)).await);
        assert_eq!(bob.hear(&bt.next_event("446").await), text);
        sent.push(publish(&mut bt, bob.say(&alice, text)).await);
        assert_eq!(alice.hear(&at.next_event("446").await), text);
    }

    let seen: Vec<String> = bt.ids(json!({"kinds": [446]})).await.expect("a recipient reads");
    drop(bt);
    let texts = ["one while you were away", "two", "three"];
    for text in texts {
        sent.push(publish(&mut at, alice.say(&bob, text)).await);
    }
    let mut bt = online(&relay, &bob).await;
    let mut missed = bt.req("stored", &[json!({"kinds": [446]})]).await.expect("a recipient reads");
    missed.retain(|event| !seen.iter().any(|id| id == event.id()));
    // Within one second the relay orders by id, so the messages carry their own order.
    missed.sort_by_key(number);
    let heard: Vec<String> = missed.iter().map(|event| bob.hear(event)).collect();
    assert_eq!(heard, texts);
    sent.push(publish(&mut bt, bob.say(&alice, "I am back")).await);
    assert_eq!(alice.hear(&at.next_event("446").await), "I am back");

    outside.expect_nothing_of(&sent, auth).await;
    // A 446 is readable by its recipient, and not by its author.
    let by_alice = json!({"authors": [alice.keys.hex()], "kinds": [446]});
    hidden::expect(&mut at, by_alice.clone(), Expected::Nothing).await;
    let received = bt.ids(by_alice).await.expect("a recipient reads").len();
    assert_eq!(received, 2 + 2 + texts.len(), "of the handshake, the conversation, and bob's absence");
    relay.stop().await;
}

/// Connects `person` and subscribes to the 446s that are addressed to it from now on.
async fn online(relay: &TestRelay, person: &Person) -> Client {
    let mut client = Client::of(relay, &[&person.keys]).await;
    client
        .req("446", &[json!({"kinds": [446], "#p": [person.keys.hex()], "limit": 0})])
        .await
        .expect("a reader may ask");
    client
}

async fn publish(client: &mut Client, event: Event) -> Event {
    client.publish(&event).await.ok();
    event
}

/// Someone with a Nostr key, a Noise key, and one conversation.
struct Person {
    keys: Keys,
    static_key: snow::Keypair,
    session: Session,
}

enum Session {
    None,
    Handshake(Box<HandshakeState>),
    /// Messages carry their number, because a relay keeps no order within a second.
    Open {
        state: Box<StatelessTransportState>,
        sent: u64,
    },
}

impl Person {
    fn new() -> Self {
        let static_key = builder(CHACHA).generate_keypair().expect("a key pair");
        Self { keys: Keys::random(), static_key, session: Session::None }
    }

    fn begin(&mut self, protocol: &str) {
        let key = &self.static_key.private;
        let state = builder(protocol).local_private_key(key).and_then(Builder::build_initiator).expect("a session");
        self.session = Session::Handshake(Box::new(state));
    }

    fn expect(&mut self, protocol: &str) {
        let key = &self.static_key.private;
        let state = builder(protocol).local_private_key(key).and_then(Builder::build_responder).expect("a session");
        self.session = Session::Handshake(Box::new(state));
    }

    /// The next message of the handshake. It carries `text`, protected as far as this step of the handshake allows.
    fn handshake(&mut self, to: &Self, text: &str) -> Event {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let length = self.state().write_message(text.as_bytes(), &mut buffer).expect("our turn");
        self.event(to, &buffer[..length])
    }

    fn read_handshake(&mut self, event: &Event) -> String {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let length = self.state().read_message(&bytes(event), &mut buffer).expect("a handshake message");
        text(&buffer[..length])
    }

    /// Ends the handshake and returns the other person's Noise key.
    fn open(&mut self) -> Vec<u8> {
        let Session::Handshake(state) = std::mem::replace(&mut self.session, Session::None) else {
            panic!("no handshake is under way");
        };
        let state = state.into_stateless_transport_mode().expect("the handshake is complete");
        let theirs = state.get_remote_static().expect("XX tells it").to_vec();
        self.session = Session::Open { state: Box::new(state), sent: 0 };
        theirs
    }

    fn say(&mut self, to: &Self, text: &str) -> Event {
        let Session::Open { state, sent } = &mut self.session else { panic!("the handshake is not complete") };
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let length = state.write_message(*sent, text.as_bytes(), &mut buffer).expect("a message");
        let message = [&sent.to_be_bytes(), &buffer[..length]].concat();
        *sent += 1;
        self.event(to, &message)
    }

    fn hear(&mut self, event: &Event) -> String {
        let Session::Open { state, .. } = &mut self.session else { panic!("the handshake is not complete") };
        let bytes = bytes(event);
        let (_, message) = bytes.split_at(size_of::<u64>());
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let length = state.read_message(number(event), message, &mut buffer).expect("a message for us");
        text(&buffer[..length])
    }

    fn state(&mut self) -> &mut HandshakeState {
        match &mut self.session {
            Session::Handshake(state) => state,
            _ => panic!("no handshake is under way"),
        }
    }

    fn event(&self, to: &Self, message: &[u8]) -> Event {
        self.keys
            .event(446)
            .tag(["p", &to.keys.hex()])
            .tag(["v", "noise.1"])
            .content(BASE64_STANDARD.encode(message))
            .sign()
    }
}

fn builder(protocol: &str) -> Builder<'static> {
    Builder::new(protocol.parse().expect("a protocol that snow has"))
}

fn bytes(event: &Event) -> Vec<u8> {
    BASE64_STANDARD.decode(event.content()).expect("base64")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The number of a message after the handshake.
fn number(event: &Event) -> u64 {
    let bytes = bytes(event);
    u64::from_be_bytes(bytes[..size_of::<u64>()].try_into().expect("so many bytes"))
}

/// A client with a key of its own and a client without one; both have been subscribed from the start.
struct Outside {
    stranger: Client,
    anonymous: Client,
    /// The stranger at the REST doors.
    rest: Rest,
}

impl Outside {
    async fn arrive(relay: &TestRelay) -> Self {
        let keys = Keys::random();
        let rest = Rest::of(relay, &keys);
        let mut stranger = Client::of(relay, &[&keys]).await;
        stranger.req("all", &[json!({"kinds": [446]}), json!({})]).await.expect("a reader may ask");
        let mut anonymous = Client::connect(relay).await;
        // With AUTH on, the relay answers CLOSED; with AUTH off, the subscription stays open for public events.
        let _ = anonymous.req("all", &[json!({})]).await;
        Self { stranger, anonymous, rest }
    }

    async fn expect_nothing_of(&mut self, sent: &[Event], auth: bool) {
        assert_eq!(self.stranger.received("all").await, []);
        assert_eq!(self.anonymous.received("all").await, []);
        hidden::expect(&mut self.stranger, json!({"kinds": [446]}), Expected::Nothing).await;
        hidden::expect(&mut self.anonymous, json!({"kinds": [446]}), Expected::AuthRequired).await;
        for event in sent {
            for filter in hidden::ways_to(event) {
                hidden::expect(&mut self.stranger, filter.clone(), Expected::Nothing).await;
                let expected =
                    if auth || filter.get("kinds").is_some() { Expected::AuthRequired } else { Expected::Nothing };
                hidden::expect(&mut self.anonymous, filter, expected).await;
            }
        }
        hidden::expect_none_of(&mut self.stranger, sent).await;
        hidden::expect_none_by_rest(&self.rest, sent).await;
    }
}
