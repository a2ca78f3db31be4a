//! Two admins change a group at the same moment.

use mdk_clients::group::{found_together, later_second_than};
use mdk_clients::person::Person;
use mdk_clients::relay::{Relay, Settings};
use mdk_core::prelude::NostrGroupDataUpdate;
use nostr::event::Event;

/// The relay keeps and delivers both of two commits of one epoch, so that all clients reach the same state.
///
/// In Marmot no server picks the winner. The clients do, by `created_at` and then by id. A relay that refused or lost
/// one of the two, or withheld one from some members, would split the group for good. If the better commit arrives
/// second, all members have to undo the worse one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_commits_race() {
    let relay = Relay::start(Settings::default()).await;
    let mut alice = Person::with_signer("Alice", &relay).await;
    let mut bob = Person::with_signer("Bob", &relay).await;
    let mut carol = Person::with_signer("Carol", &relay).await;
    for person in [&alice, &bob, &carol] {
        person.introduce().await;
    }
    let admins = [alice.public_key(), bob.public_key()];
    found_together(&mut alice, &mut [&mut bob, &mut carol], &admins).await;
    let mut people = [alice, bob, carol];

    let of_one_moment = [rename(&people[0], "1 of Alice"), rename(&people[1], "1 of Bob")];
    race(&mut people, of_one_moment, Arrival::WorseFirst).await;
    talk(&mut people, "after the first race").await;

    let of_one_moment = [rename(&people[0], "2 of Alice"), rename(&people[1], "2 of Bob")];
    race(&mut people, of_one_moment, Arrival::BetterFirst).await;
    talk(&mut people, "after the second race").await;

    let earlier = rename(&people[1], "3 of Bob");
    later_second_than(&earlier.commit).await;
    let later = rename(&people[0], "3 of Alice");
    race(&mut people, [earlier, later], Arrival::WorseFirst).await;
    talk(&mut people, "after the third race").await;
}

/// A commit that renames the group, neither published nor applied yet.
struct Rename {
    name: &'static str,
    commit: Event,
}

/// The order in which the relay gets two commits, as Marmot ranks them.
enum Arrival {
    WorseFirst,
    BetterFirst,
}

fn rename(person: &Person, name: &'static str) -> Rename {
    let change = person
        .mdk
        .update_group_data(person.group_id(), NostrGroupDataUpdate::new().name(name))
        .expect("an admin renames the group");
    Rename { name, commit: change.evolution_event }
}

async fn race(people: &mut [Person; 3], mut renames: [Rename; 2], arrival: Arrival) {
    let epoch = people[0].group().epoch;
    renames.sort_by_key(|rename| (rename.commit.created_at, rename.commit.id));
    let better = renames[0].name;
    if let Arrival::WorseFirst = arrival {
        renames.reverse();
    }
    for rename in &renames {
        people[0].connection.publish(&rename.commit).await;
    }
    let ids = renames.map(|rename| rename.commit.id);
    for person in people.iter_mut() {
        person.read_until_delivered(&ids).await;
        let group = person.group();
        assert_eq!(group.name, better, "for {}", person.name);
        assert_eq!(group.epoch, epoch + 1, "for {}", person.name);
    }
    assert_eq!(people[0].state(), people[1].state());
    assert_eq!(people[0].state(), people[2].state());
}

/// Sends a message from each person, which all persons read.
async fn talk(people: &mut [Person; 3], text: &str) {
    let mut said = Vec::new();
    for person in people.iter_mut() {
        said.push(person.say(text).await);
    }
    for person in people {
        for words in &said {
            person.hear(words).await;
        }
    }
}
