//! Two admins change a group at the same moment.

use mdk_clients::group::{found_together, later_second_than};
use mdk_clients::person::Person;
use mdk_clients::relay::{Relay, Settings};
use mdk_core::prelude::NostrGroupDataUpdate;
use nostr::event::Event;

/// Of two commits of one epoch the relay keeps and delivers both, and so every client comes to the same state.
///
/// Marmot has no server that picks the winner: the clients do, by `created_at` and then by id. A relay that refused or lost
/// one of the two, or kept one from some members, would split the group for good. Where the better commit arrives second,
/// everyone has to go back on the worse one.
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

    let of_one_moment = [rename(&people[0], "1 A"), rename(&people[1], "1 B")];
    race(&mut people, of_one_moment, Arrival::WorseFirst).await;
    talk(&mut people, "after the first race").await;

    let of_one_moment = [rename(&people[0], "2 A"), rename(&people[1], "2 B")];
    race(&mut people, of_one_moment, Arrival::BetterFirst).await;
    talk(&mut people, "after the second race").await;

    let earlier = rename(&people[1], "3 B");
    later_second_than(&earlier).await;
    let later = rename(&people[0], "3 A");
    race(&mut people, [earlier, later], Arrival::WorseFirst).await;
    assert_eq!(people[0].group().name, "3 B");
    talk(&mut people, "after the third race").await;
}

/// The order in which the relay gets two commits, as Marmot ranks them.
enum Arrival {
    WorseFirst,
    BetterFirst,
}

async fn race(people: &mut [Person; 3], mut commits: [Event; 2], arrival: Arrival) {
    let (epoch, ..) = people[0].state();
    commits.sort_by_key(|commit| (commit.created_at, commit.id));
    let better = commits[0].id;
    if let Arrival::WorseFirst = arrival {
        commits.reverse();
    }
    for commit in &commits {
        people[0].connection.publish(commit).await;
    }
    for person in people.iter_mut() {
        person
            .read_until_delivered(&commits.each_ref().map(|commit| commit.id))
            .await;
        assert_eq!(person.last_commit(), Some(better), "{}", person.name);
        assert_eq!(person.state().0, epoch + 1, "{}", person.name);
    }
    assert_eq!(people[0].state(), people[1].state());
    assert_eq!(people[0].state(), people[2].state());
}

/// A commit that is published and applied later.
fn rename(person: &Person, name: &str) -> Event {
    person
        .mdk
        .update_group_data(person.group_id(), NostrGroupDataUpdate::new().name(name))
        .expect("an admin renames the group")
        .evolution_event
}

/// Everyone says something and everyone hears it.
async fn talk(people: &mut [Person; 3], occasion: &str) {
    let [alice, bob, carol] = people;
    alice.say(&format!("Alice {occasion}")).await;
    bob.say(&format!("Bob {occasion}")).await;
    carol.say(&format!("Carol {occasion}")).await;
    for listener in [&mut *alice, &mut *bob, &mut *carol] {
        for speaker in ["Alice", "Bob", "Carol"] {
            listener.hear(&format!("{speaker} {occasion}")).await;
        }
    }
}
