//! docs/rules.md, "Strangers": work and invitations for foundings and for inboxes.

use nostr_protocol::{
    PublicKey, Unverified,
    invitation::{Invitation, InvitedTo},
    pow::proven_bits,
};
use nostr_relay::config::Config;
use serde_json::json;

use super::World;
use crate::support::{
    Event, Keys,
    event::Draft,
    gateway::{capability, message, roster, welcome, wrap},
    rest::Rest,
};

const BITS: u16 = 6;

/// Mines a draft until its id proves so many bits.
fn mined(draft: &Draft, bits: u16) -> Event {
    let proves = |event: &Event| {
        let read = Unverified::parse(event.0.to_string().as_bytes()).expect("an event");
        proven_bits(read.event()) >= u32::from(bits)
    };
    let with = |nonce: u32| draft.clone().tag(["nonce", &nonce.to_string(), &bits.to_string()]).sign();
    (0..).map(with).find(proves).expect("there is one")
}

fn invited(draft: Draft, by: &Keys, to: InvitedTo, subject: PublicKey, until: u64) -> Event {
    draft.tag(Invitation::new(&(*by.pair()).into(), to, &subject, until).tag()).sign()
}

fn foundings(configure: impl FnOnce(&mut Config)) -> impl FnOnce(&mut Config) {
    |config| {
        config.mls_gateway.open_bootstrap = true;
        configure(config);
    }
}

#[tokio::test]
async fn a_stranger_founds_a_group_by_work() {
    let world = World::with(foundings(|config| config.strangers.founding_min_pow = BITS)).await;
    let [alice, bob] = Keys::some();
    let mut alices = world.client(&[&alice]).await;
    for founding in [welcome(&bob, "grp_wrap"), roster(&alice, "grp_roster", 1, "bootstrap", &[&bob])] {
        let answer = alices.publish(&founding.clone().sign()).await;
        assert!(answer.refused("pow").contains("proves 0 bits of work, and 6 are wanted"), "{answer:?}");
        alices.publish(&mined(&founding, BITS - 1)).await.refused("pow");
        alices.publish(&mined(&founding, BITS)).await.ok();
    }
    assert_eq!((world.roles("grp_wrap").await.len(), world.roles("grp_roster").await.len()), (2, 2));
    // Members bring no proof, nor do the operator's keys.
    alices.publish(&welcome(&Keys::random(), "grp_wrap").sign()).await.ok();
    alices.publish(&roster(&alice, "grp_roster", 2, "add", &[&Keys::random()]).sign()).await.ok();
    world.group("grp_admin", &[&alice]).await;
    // A stranger learns nothing about a group by leaving the proof out.
    let mut eves = world.client(&[&Keys::random()]).await;
    let of_old = eves.publish(&welcome(&bob, "grp_wrap").sign()).await;
    let of_new = eves.publish(&welcome(&bob, "grp_new").sign()).await;
    assert_eq!(of_old.reason, of_new.reason);
}

#[tokio::test]
async fn an_invited_key_founds_a_group_until_its_time() {
    let host = Keys::random();
    let world = World::with(foundings(|config| {
        config.strangers.founding_by_invitation = true;
        config.strangers.invitation_pubkeys = vec![host.public()];
    }))
    .await;
    let [alice, bob, eve] = Keys::some();
    let until = world.relay.now() + 60;
    let to = InvitedTo::FoundGroups;
    let mut alices = world.client(&[&alice]).await;
    alices.publish(&welcome(&bob, "grp_a").sign()).await.refused("restricted");
    alices.publish(&invited(welcome(&bob, "grp_a"), &eve, to, alice.public(), until)).await.refused("restricted");
    let taken = invited(welcome(&bob, "grp_a"), &host, to, alice.public(), until);
    // Another key sends the same event, or an event with the same tag.
    world.client(&[&eve]).await.publish(&taken).await.refused("restricted");
    alices.publish(&taken).await.ok();
    let roster = roster(&alice, "grp_b", 1, "bootstrap", &[&bob]);
    alices.publish(&invited(roster, &host, to, alice.public(), until)).await.ok();
    world.relay.advance(60);
    let late = welcome(&bob, "grp_c").content("late");
    alices.publish(&invited(late, &host, to, alice.public(), until)).await.refused("restricted");
}

/// An inbox is open until its owner asks, by its list of relays, and is open for keys that the owner has written to.
#[tokio::test]
async fn an_owner_asks_strangers_for_work_or_an_invitation() {
    // The relay remembers by its rates to whom a key has written.
    let world = World::alone(|config| {
        config.strangers.inbox_owners_ask = true;
        config.mls_gateway.rate_limits.max_events_per_minute = 6_000;
    })
    .await;
    let [alice, bob, carol] = Keys::some();
    let mut strangers = world.client(&[]).await;
    strangers.publish(&wrap(&bob).sign()).await.ok();
    let list = |tags: &[&[&str]], at| {
        let list = bob.event(10_050).tag(["relay", "wss://relay.example"]).created_at(world.relay.now() + at);
        tags.iter().fold(list, |list, tag| list.tag(tag.iter().copied())).sign()
    };
    let mut bobs = world.client(&[&bob]).await;
    bobs.publish(&list(&[&["pow", "6"]], 0)).await.ok();
    world.relay.advance(60);
    strangers.publish(&wrap(&bob).sign()).await.refused("pow");
    strangers.publish(&wrap(&alice).sign()).await.ok();
    strangers.publish(&mined(&wrap(&bob), BITS)).await.ok();
    let ephemeral = Keys::random().event(21_059).tag(["p", &bob.hex()]);
    strangers.publish(&ephemeral.clone().sign()).await.refused("pow");
    strangers.publish(&mined(&ephemeral, BITS)).await.ok();
    Rest::anonymous(&world.relay).post("/events", wrap(&bob).sign().0.to_string()).refused(403).await;
    // The owner invites into its own inbox, and nobody else does here.
    let until = world.relay.now() + 600;
    let by = |host: &Keys| invited(wrap(&bob), host, InvitedTo::WriteToInbox, bob.public(), until);
    strangers.publish(&by(&carol)).await.refused("pow");
    strangers.publish(&by(&bob)).await.ok();
    // Bob's own wraps, those of a key that bob wrote to, and those of a member of a common group.
    bobs.publish(&wrap(&bob).sign()).await.ok();
    let mut alices = world.client(&[&alice]).await;
    alices.publish(&wrap(&bob).sign()).await.refused("pow");
    bobs.publish(&wrap(&alice).sign()).await.ok();
    alices.publish(&wrap(&bob).sign()).await.ok();
    let mut knows = world.client(&[&carol]).await;
    knows.publish(&wrap(&bob).sign()).await.refused("pow");
    world.group("grp_a", &[&bob, &carol]).await;
    knows.publish(&wrap(&bob).sign()).await.ok();
    // An owner that asks for an invitation takes no work.
    bobs.publish(&list(&[&["invitation"]], 1)).await.ok();
    world.relay.advance(60);
    strangers.publish(&mined(&wrap(&bob), BITS)).await.refused("auth-required");
    strangers.publish(&by(&bob)).await.ok();
}

#[tokio::test]
async fn the_operator_asks_for_work_at_every_inbox() {
    let host = Keys::random();
    let world = World::with(|config| {
        config.strangers.inbox_min_pow = BITS;
        config.strangers.invitation_pubkeys = vec![host.public()];
    })
    .await;
    let [alice, bob] = Keys::some();
    let mut strangers = world.client(&[]).await;
    strangers.publish(&wrap(&bob).sign()).await.refused("pow");
    strangers.publish(&mined(&wrap(&bob), BITS)).await.ok();
    world.admin().await.publish(&wrap(&bob).sign()).await.ok();
    let until = world.relay.now() + 600;
    let by = |to, subject| invited(wrap(&bob), &host, to, subject, until);
    strangers.publish(&by(InvitedTo::WriteToInbox, alice.public())).await.refused("pow");
    strangers.publish(&by(InvitedTo::FoundGroups, bob.public())).await.refused("pow");
    strangers.publish(&by(InvitedTo::WriteToInbox, bob.public())).await.ok();
    // The owner's own list is not looked at.
    let mut bobs = world.client(&[&bob]).await;
    bobs.publish(&bob.event(10_050).tag(["pow", "200"]).sign()).await.ok();
    strangers.publish(&mined(&wrap(&bob), BITS)).await.ok();
    // Everything else is published without a proof.
    strangers.publish(&alice.event(1).sign()).await.ok();
}

/// The owner of an inbox that asks for a proof that nobody has learns nothing about a group by wraps that name it, with
/// a key, without one, and while a client has time for its AUTH.
#[tokio::test]
async fn a_wrap_without_a_proof_tells_nothing_about_its_group() {
    let world = World::with(|config| {
        config.strangers.inbox_owners_ask = true;
        config.auth.grace_ms = 600_000;
    })
    .await;
    let [alice, bob, eve] = Keys::some();
    world.client(&[&bob]).await.publish(&bob.event(10_050).tag(["pow", "255"]).sign()).await.ok();
    let [managed, unlisted, unknown] = [capability(), capability(), capability()];
    world.group("grp_a", &[&alice]).await;
    world.group(&managed, &[&alice]).await;
    world.client(&[&alice]).await.publish(&message(&unlisted).sign()).await.ok();
    let mut reasons = std::collections::BTreeSet::new();
    for group in ["grp_a", "grp_unknown", &managed, &unlisted, &unknown] {
        for keys in [&[&eve][..], &[]] {
            let mut client = world.client(keys).await;
            reasons.insert(client.publish(&welcome(&bob, group).sign()).await.refused("pow").to_owned());
        }
        let question = json!({ "event": welcome(&bob, group).sign().0, "reader": eve.hex() });
        let answer = Rest::of(&world.relay, &world.admin).post("/diagnose", question.to_string()).ok().await;
        assert_eq!(answer["write"]["rule"], "Strangers 3", "{answer}");
    }
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    let mut eves = world.client(&[&eve]).await;
    let of_two = welcome(&bob, "grp_a").tag(["p", &alice.hex()]).sign();
    eves.publish(&of_two).await.refused("invalid");
}

/// Work is asked of no sender from which the relay takes nothing.
#[tokio::test]
async fn no_work_is_asked_in_vain() {
    let resident = Keys::random();
    let world = World::with(|config| {
        config.strangers.inbox_min_pow = BITS;
        config.auth.pubkey_whitelist = vec![resident.public()];
    })
    .await;
    let [eve, bob] = Keys::some();
    let mut eves = world.client(&[&eve]).await;
    eves.publish(&wrap(&bob).sign()).await.refused("restricted");
    eves.publish(&wrap(&resident).sign()).await.refused("pow");
}

/// A key that makes an owner a member of its own group is no key that the owner knows, until the owner acts there.
#[tokio::test]
async fn nobody_makes_itself_known_by_a_group_of_its_own() {
    let world = World::with(foundings(|config| config.strangers.inbox_min_pow = BITS)).await;
    let [eve, bob] = Keys::some();
    let mut eves = world.client(&[&eve]).await;
    eves.publish(&mined(&welcome(&bob, "grp_eve"), BITS)).await.ok();
    eves.publish(&roster(&eve, "grp_roster", 1, "bootstrap", &[&bob]).sign()).await.ok();
    eves.publish(&wrap(&bob).sign()).await.refused("pow");
    eves.publish(&welcome(&bob, "grp_eve").sign()).await.refused("pow");
    world.client(&[&bob]).await.publish(&message("grp_eve").sign()).await.ok();
    eves.publish(&wrap(&bob).sign()).await.ok();
}

/// The look whether an owner knows a sender costs the sender by the groups of its keys.
#[tokio::test]
async fn a_sender_pays_for_the_look_at_its_groups() {
    const GROUPS: u32 = 200;
    const BUDGET: u32 = 12_000;
    let world = World::alone(|config| {
        config.strangers.inbox_min_pow = BITS;
        config.mls_gateway.rate_limits.max_read_cost_per_minute = BUDGET;
    })
    .await;
    let [alice, bob, eve] = Keys::some();
    let mut admins = world.admin().await;
    for n in 0..GROUPS {
        admins.publish(&roster(&world.admin, &format!("grp_{n}"), 1, "bootstrap", &[&alice]).sign()).await.ok();
    }
    // A key of no group pays one unit a look.
    let mut eves = world.client(&[&eve]).await;
    for _ in 0..2 * BUDGET / GROUPS {
        eves.publish(&wrap(&bob).sign()).await.refused("pow");
    }
    let mut alices = world.client(&[&alice]).await;
    let mut looks = 0;
    loop {
        let answer = alices.publish(&wrap(&bob).sign()).await;
        if answer.reason.starts_with("rate-limited: ") {
            break;
        }
        answer.refused("pow");
        looks += 1;
        assert!(looks <= BUDGET / GROUPS, "a look costs less than the groups that it reads");
    }
    assert!(looks > 0);
}

#[tokio::test]
async fn a_diagnosis_and_the_information_document_tell_of_proofs() {
    let world = World::with(|config| config.strangers.inbox_min_pow = BITS).await;
    let [alice, bob] = Keys::some();
    let question = json!({ "event": wrap(&bob).sign().0, "reader": alice.hex() });
    let answer = Rest::of(&world.relay, &world.admin).post("/diagnose", question.to_string()).ok().await;
    assert_eq!((&answer["write"]["allowed"], &answer["write"]["rule"]), (&json!(false), &json!("Strangers 3")));
    let address = world.relay.next_address();
    let document = crate::support::http(address, "GET /", &[("accept", "application/nostr+json")]).await.json();
    assert_eq!(document["mls_gateway"]["inbox_min_pow"], BITS);
    assert_eq!(document["limitation"]["min_pow_difficulty"], 0, "it is asked of some events alone");
}
