//! The onboarding of MLS clients that authenticate: KeyPackage, gift wrap, group message, Noise message, and an
//! outsider who sees none of it.

use nostr_protocol::{Event, Kind};
use serde_json::json;

use super::{
    super::client::{Answer, Client, Trouble},
    Address,
    advice::{Advice, Step},
    claim::{Claimed, claim},
    person::{Founded, Person, random_id},
    report::Report,
};

const READ: &str = "\"Who may publish, who may read\" 1";

/// A person with an open connection.
struct Visitor {
    person: Person,
    client: Client,
}

/// The scene: a founder, an invited person and an outsider.
struct Scene<'a> {
    relay: &'a Address,
    report: &'a mut Report,
    alice: Visitor,
    bob: Visitor,
    eve: Visitor,
    group: String,
}

/// Plays the onboarding. A step on which the later ones depend ends it when it fails.
///
/// # Errors
/// The relay gives no answer.
pub(super) async fn play(relay: &Address, report: &mut Report) -> Result<(), Trouble> {
    let mut visitors = Vec::new();
    for _ in 0..3 {
        let (person, mut client) = (Person::new()?, Client::connect(relay).await?);
        let answer = client.auth(&person.keys).await?;
        if !answer.accepted {
            let advice = Advice::of(Step::Auth(&relay.url), &answer.reason);
            report.failed("a client authenticates", answer.reason, advice);
            return Ok(());
        }
        visitors.push(Visitor { person, client });
    }
    report.passed("three clients authenticate", "the relay accepted their keys", "\"Identity\" 4");
    let [alice, bob, eve] =
        visitors.try_into().map_err(|_| Trouble("three clients connect".to_owned())).map(|it: [Visitor; 3]| it)?;
    let mut scene = Scene { relay, report, alice, bob, eve, group: format!("doctor-{}", &random_id()[..32]) };
    let ended = scene.play().await;
    // The events that were published go, however far the scene came.
    scene.clean_up().await?;
    ended
}

impl Scene<'_> {
    async fn play(&mut self) -> Result<(), Trouble> {
        let Some(package) = self.publish_key_package().await? else { return Ok(()) };
        self.claim(&package).await?;
        if let Some(mut founded) = self.invite(&package).await? {
            self.talk(&mut founded).await?;
        }
        self.send_noise_message().await
    }

    async fn publish_key_package(&mut self) -> Result<Option<Event>, Trouble> {
        const STEP: &str = "Bob publishes a KeyPackage";
        let package = self.bob.person.key_package(Kind::KEY_PACKAGE)?;
        let answer = self.bob.client.publish(&package).await?;
        if !self.note(STEP, Step::KeyPackage, answer, "\"KeyPackages\" 1") {
            return Ok(None);
        }
        let filter = json!({"kinds": [443], "authors": [self.bob.person.hex()]});
        let found = self.alice.client.request("package", filter).await?;
        const FIND: &str = "Alice finds Bob's KeyPackage";
        match found {
            Ok(ids) if ids.contains(&package.id().to_hex()) => self.report.passed(FIND, "the relay served it", READ),
            Ok(_) => self.report.failed(FIND, "the relay served no such event", Advice::of_silence()),
            Err(reason) => {
                let advice = Advice::of(Step::Request, &reason);
                self.report.failed(FIND, reason, advice);
            }
        }
        Ok(Some(package))
    }

    async fn claim(&mut self, package: &Event) -> Result<(), Trouble> {
        const STEP: &str = "Alice claims Bob's KeyPackage by REST";
        let (keys, owner) = (&self.alice.person.keys, self.bob.person.hex());
        match claim(self.relay, keys, &owner).await? {
            Claimed::Given(ids) if ids == [package.id().to_hex()] => {
                self.report.passed(STEP, "the relay gave it", "\"Claims\" 1");
            }
            Claimed::Given(_) => self.report.failed(STEP, "the relay gave another one", Advice::of_silence()),
            Claimed::NoDoor => self.report.off(STEP, "the relay has no REST API", Advice::of_no_api()),
            Claimed::Refused(reason) => {
                let advice = Advice::of(Step::Claim(&self.relay.url), &reason);
                self.report.failed(STEP, reason, advice);
            }
        }
        Ok(())
    }

    /// Invites Bob by a Welcome in a gift wrap, which founds the group on the relay.
    async fn invite(&mut self, package: &Event) -> Result<Option<Founded>, Trouble> {
        const STEP: &str = "Alice founds a group by a gift wrap to Bob";
        let founded = self.alice.person.found(&package.content())?;
        let bob = self.bob.person.hex();
        let inbox = json!({"kinds": [1059], "#p": [bob]});
        for visitor in [&mut self.bob, &mut self.eve] {
            // Eve asks for Bob's inbox: the relay gives her nothing of it.
            let _ = visitor.client.request("inbox", inbox.clone()).await?;
        }
        let wrap = Person::gift_wrap(&bob, Some(&self.group), &founded.welcome)?;
        let answer = self.alice.client.publish(&wrap).await?;
        if !self.note(STEP, Step::GiftWrap, answer, "\"Gift wraps\" 2") {
            return Ok(None);
        }
        self.arrives("Bob receives the gift wrap", "inbox", &wrap).await?;
        Ok(Some(founded))
    }

    async fn talk(&mut self, founded: &mut Founded) -> Result<(), Trouble> {
        const STEP: &str = "Alice sends a group message";
        let filter = json!({"kinds": [445], "#h": [self.group]});
        for visitor in [&mut self.bob, &mut self.eve] {
            let _ = visitor.client.request("group", filter.clone()).await?;
        }
        let message = self.alice.person.say(founded, &self.group)?;
        let answer = self.alice.client.publish(&message).await?;
        if !self.note(STEP, Step::GroupMessage, answer, "\"Groups\" 4") {
            return Ok(());
        }
        self.arrives("Bob receives the group message", "group", &message).await?;
        self.expect_blocked(&filter).await?;
        const LATER: &str = "a new connection of Bob's finds the message in the archive";
        let mut again = Client::connect(self.relay).await?;
        let _ = again.auth(&self.bob.person.keys).await?;
        match again.request("later", filter).await? {
            Ok(ids) if ids.contains(&message.id().to_hex()) => {
                self.report.passed(LATER, "the relay served it", "\"Archive\" 1");
            }
            Ok(_) => self.report.off(LATER, "the relay keeps no messages", Advice::of_missing_archive()),
            Err(reason) => {
                let advice = Advice::of(Step::Request, &reason);
                self.report.failed(LATER, reason, advice);
            }
        }
        Ok(())
    }

    /// Eve, who is in no group, neither reads nor writes.
    async fn expect_blocked(&mut self, filter: &serde_json::Value) -> Result<(), Trouble> {
        const READS: &str = "Eve, an outsider, reads nothing of the group";
        let stored = self.eve.client.request("again", filter.clone()).await?.unwrap_or_default();
        if stored.is_empty() && !self.eve.client.has_event("group") && !self.eve.client.has_event("inbox") {
            self.report.passed(READS, "the relay served her no event", READ);
        } else {
            self.report.failed(READS, "the relay served her an event of the group", Advice::of_leak());
        }
        const WRITES: &str = "Eve cannot write to the group";
        let forged = super::person::group_message(&self.group, "a message of an outsider")?;
        let answer = self.eve.client.publish(&forged).await?;
        match answer.accepted {
            false => self.report.passed(WRITES, answer.reason, "\"Groups\" 3"),
            true => self.report.failed(WRITES, "the relay accepted her message", Advice::of_leak()),
        }
        Ok(())
    }

    async fn send_noise_message(&mut self) -> Result<(), Trouble> {
        const STEP: &str = "Alice sends Bob a Noise message";
        let bob = self.bob.person.hex();
        let filter = json!({"kinds": [446], "#p": [bob]});
        for visitor in [&mut self.bob, &mut self.eve] {
            let _ = visitor.client.request("noise", filter.clone()).await?;
        }
        let message = self.alice.person.noise_message(&bob)?;
        let answer = self.alice.client.publish(&message).await?;
        if !self.note(STEP, Step::NoiseMessage, answer, READ) {
            return Ok(());
        }
        self.arrives("Bob receives the Noise message", "noise", &message).await?;
        const READS: &str = "Eve reads nothing of Bob's";
        let stored = self.eve.client.request("stored", filter).await?.unwrap_or_default();
        if stored.is_empty() && !self.eve.client.has_event("noise") {
            self.report.passed(READS, "the relay served her no event", READ);
        } else {
            self.report.failed(READS, "the relay served her a message to Bob", Advice::of_leak());
        }
        Ok(())
    }

    /// Waits for an event at Bob's connection.
    async fn arrives(&mut self, step: &'static str, subscription: &str, event: &Event) -> Result<(), Trouble> {
        let id = self.bob.client.next_event(subscription).await?.id();
        if id == event.id() {
            self.report.passed(step, "it came live", READ);
        } else {
            self.report.failed(step, format!("another event came: {id}"), Advice::of_silence());
        }
        Ok(())
    }

    /// Notes an answer, and returns whether the event was accepted.
    fn note(&mut self, name: &'static str, step: Step<'_>, answer: Answer, rule: &'static str) -> bool {
        match answer.accepted {
            true => self.report.passed(name, "the relay accepted it", rule),
            false => {
                let advice = Advice::of(step, &answer.reason);
                self.report.failed(name, answer.reason, advice);
            }
        }
        answer.accepted
    }

    async fn clean_up(&mut self) -> Result<(), Trouble> {
        const STEP: &str = "the doctor's keys vanish";
        for visitor in [&mut self.bob, &mut self.eve, &mut self.alice] {
            let answer = visitor.client.publish(&visitor.person.vanish(&self.relay.name)?).await?;
            if !answer.accepted {
                let advice = Advice::of(Step::Vanish(&self.relay.url), &answer.reason);
                self.report.failed(STEP, answer.reason, advice);
                return Ok(());
            }
        }
        self.report.passed(STEP, "their events are gone; the group's record stays", "\"Deletion\" 7");
        Ok(())
    }
}
