use nostr_store::memory::Memory;

use super::*;

fn id(text: &str) -> NostrGroupId {
    NostrGroupId::parse(text).expect("an id")
}

/// The cursor from which an answer is kept, and the changes that were noted.
fn noted(asking: &Asking<'_>) -> (Cursor, u64) {
    let states = asking.groups.states.lock();
    (asking.changed_at(&states), asking.changes(&states))
}

async fn cached(names: &[&str]) -> Groups {
    let groups = Groups::new(Arc::new(Memory::default()), Duration::from_secs(60));
    for name in names {
        groups.get(&id(name)).await.expect("a state");
    }
    groups
}

#[tokio::test]
async fn a_membership_that_gives_way_leaves_the_other_groups_cached() {
    let groups = cached(&["one", "two", "three"]).await;
    groups.note_change(&Touches::groups([id("one"), id("two")]), 5);
    let in_memory = ["one", "two", "three"].map(|name| groups.in_memory(&id(name)).is_some());
    assert_eq!(in_memory, [false, false, true]);
    groups.note_change(&Touches::Nothing, 6);
    assert!(groups.in_memory(&id("three")).is_some());
    groups.note_change(&Touches::EveryGroup, 7);
    assert!(groups.in_memory(&id("three")).is_none());
}

#[tokio::test]
async fn a_load_is_overtaken_by_changes_of_its_own_group_alone() {
    let groups = cached(&[]).await;
    let (one, two) = (id("one"), id("two"));
    let asking = Asking::begin(&groups, &one);
    groups.note_change(&Touches::groups([two.clone()]), 5);
    assert_eq!(noted(&asking), (0, 0));
    groups.note_change(&Touches::groups([one.clone(), two]), 6);
    assert_eq!(noted(&asking), (6, 1));
    groups.note_change(&Touches::EveryGroup, 7);
    assert_eq!(noted(&asking), (7, 2));
    drop(asking);
    assert!(groups.states.lock().loading.is_empty());
    let asking = Asking::begin(&groups, &one);
    assert_eq!(noted(&asking).0, 7, "no answer from before what is known is kept");
}

#[tokio::test]
async fn a_group_that_comes_to_be_is_unknown_no_more() {
    let groups = cached(&[]).await;
    let (named, closed) = (NamedGroups::default(), |_: &Group| false);
    groups.filter(vec![id("one"), id("two")], &named, closed).await.expect("an answer");
    let unknown = |name| groups.is_known_to_be_unknown(groups.hash(&id(name)));
    assert!(unknown("one") && unknown("two"));
    groups.note_change(&Touches::groups([id("one")]), 5);
    assert!(!unknown("one") && unknown("two"));
    groups.note_change(&Touches::EveryGroup, 6);
    assert!(!unknown("two"));
}
