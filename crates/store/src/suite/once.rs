//! Names that are used once.

use super::world::{START, World};

pub async fn a_name_is_used_once_until_its_time(world: &mut World) {
    let [a, b] = [[1; 32], [2; 32]];
    let use_once = async |name, until, now| world.store.use_once(name, until, now).await.expect("a store that works");
    assert!(use_once(&a, START + 60, START).await);
    assert!(!use_once(&a, START + 90, START).await, "the same moment");
    assert!(!use_once(&a, START + 90, START + 59).await, "a second use does not move its end");
    assert!(use_once(&b, START + 60, START).await, "another name");
    world.store.sweep(START + 59, 100).await.expect("a sweep");
    assert!(!use_once(&a, START + 90, START + 59).await, "a sweep leaves it until its time");
    world.store.sweep(START + 60, 100).await.expect("a sweep");
    assert!(use_once(&a, START + 120, START + 60).await, "it was forgotten at its end");
    assert!(!use_once(&a, START + 120, START + 61).await);
}

/// More names than one transaction forgets.
pub async fn all_names_past_their_time_are_forgotten(world: &mut World) {
    let name = |n: u16| {
        let mut name = [0; 32];
        name[..2].copy_from_slice(&n.to_be_bytes());
        name
    };
    for n in 0..300 {
        assert!(world.store.use_once(&name(n), START + 1, START).await.expect("a store that works"));
    }
    world.store.sweep(START + 1, 100).await.expect("a sweep");
    for n in [0, 150, 299] {
        // At a time at which a name that is still known would count as used.
        assert!(world.store.use_once(&name(n), START + 1, START).await.expect("a store that works"), "{n}");
    }
}
