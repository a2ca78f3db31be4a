//! Requests that are answered at all, and the audiences that a store need look into for them.

use nostr_extensions::{
    Asker, Gate, Group, GroupStatus, Policy,
    Role::{Admin, Member},
    Source,
    gate::Scans,
    policy::KeyPackageConsumption,
};
use nostr_protocol::{Filter, Word};
use serde_json::{Value, json};

use crate::common::{CAPABILITY, managed, policy, reader, state};

fn filter(value: &Value) -> Filter {
    serde_json::from_value(value.clone()).unwrap()
}

fn is_closed(names: &[&str], filters: &[Value], policy: Policy) -> bool {
    let filters: Vec<Filter> = filters.iter().map(filter).collect();
    match Gate::new(policy.into()).admit_request(&reader(names), &filters) {
        Ok(()) => false,
        Err(refused) => {
            assert_eq!(refused.word, Word::AuthRequired, "clients repeat after AUTH only what says so");
            true
        }
    }
}

#[test]
fn without_keys_a_filter_that_names_a_recipient_kind_is_closed() {
    for kind in [4, 446, 447, 450, 1059, 21059] {
        for asked in [
            json!({"kinds": [kind]}),
            json!({"kinds": [1, kind]}),
            json!({"kinds": [kind], "ids": ["ab".repeat(32)]}),
            json!({"kinds": [kind], "#h": [CAPABILITY]}),
        ] {
            assert!(is_closed(&[], std::slice::from_ref(&asked), policy()), "{asked}");
            assert!(is_closed(&[], &[json!({}), asked.clone()], policy()), "any filter: {asked}");
            assert!(!is_closed(&["carol"], &[asked], policy()));
        }
    }
}

#[test]
fn without_keys_445_is_closed_unless_an_h_is_a_capability() {
    for open in [json!({"kinds": [445], "#h": [CAPABILITY]}), json!({"kinds": [445], "#h": ["grp", CAPABILITY]})] {
        assert!(!is_closed(&[], &[open], policy()));
    }
    for closed in [
        json!({"kinds": [445]}),
        json!({"kinds": [445], "#h": []}),
        json!({"kinds": [445], "#h": ["grp"]}),
        json!({"kinds": [445], "#h": [CAPABILITY.to_uppercase()]}),
        json!({"kinds": [445], "#h": [CAPABILITY[1..]]}),
        json!({"kinds": [445], "ids": ["ab".repeat(32)]}),
        json!({"kinds": [445], "authors": ["ab".repeat(32)]}),
        json!({"kinds": [1, 445], "#p": ["ab".repeat(32)]}),
    ] {
        assert!(is_closed(&[], std::slice::from_ref(&closed), policy()), "{closed}");
        assert!(!is_closed(&["carol"], &[closed], policy()));
    }
}

#[test]
fn filters_that_name_no_kinds_or_public_ones_are_served() {
    for open in [
        json!({}),
        json!({"limit": 0}),
        json!({"kinds": []}),
        json!({"ids": ["ab".repeat(32)]}),
        json!({"#h": ["grp"]}),
        json!({"kinds": [0, 1, 5, 62, 443, 30443, 10002, 13, 444]}),
    ] {
        assert!(!is_closed(&[], &[open], policy()));
    }
}

#[test]
fn where_auth_is_required_everything_is_closed_before_it() {
    let locked = || Policy { auth_required: true, ..policy() };
    for asked in [json!({}), json!({"kinds": [1]}), json!({"kinds": [445], "#h": [CAPABILITY]})] {
        assert!(is_closed(&[], std::slice::from_ref(&asked), locked()));
        assert!(!is_closed(&["carol"], &[asked], locked()));
    }
}

#[test]
fn where_reading_consumes_key_packages_need_auth() {
    let on_read = || Policy { keypackage_consumption: KeyPackageConsumption::OnRead, ..policy() };
    for kind in [443, 30443] {
        assert!(is_closed(&[], &[json!({"kinds": [kind]})], on_read()));
        assert!(!is_closed(&["carol"], &[json!({"kinds": [kind]})], on_read()));
        assert!(!is_closed(&[], &[json!({"kinds": [kind]})], policy()));
    }
}

#[test]
fn a_store_looks_only_where_the_filter_and_the_reader_can_find_something() {
    let scans = |names: &[&str], asked: Value, policy: Policy| {
        Gate::new(policy.into()).scans(Asker::new(&reader(names), &filter(&asked)))
    };
    let all = Scans { everyone: true, keys: true, groups: true, all_rosters: false };
    assert_eq!(scans(&[], json!({}), policy()), all);
    assert_eq!(scans(&["operator"], json!({}), policy()), Scans { all_rosters: true, ..all });
    let none = Scans { everyone: false, keys: false, groups: false, all_rosters: false };
    let of = |kinds: Value| scans(&["carol"], json!({ "kinds": kinds }), policy());
    assert_eq!(of(json!([445])), Scans { groups: true, ..none });
    assert_eq!(of(json!([450])), Scans { groups: true, ..none });
    assert_eq!(of(json!([1])), Scans { everyone: true, ..none });
    assert_eq!(of(json!([4])), Scans { keys: true, ..none });
    assert_eq!(of(json!([5])), Scans { everyone: true, keys: true, ..none });
    assert_eq!(of(json!([1059, 446, 447, 21059])), Scans { keys: true, ..none });
    assert_eq!(of(json!([444, 13])), none);
    let rosters = scans(&["operator"], json!({"kinds": [450]}), policy());
    assert_eq!(rosters, Scans { groups: true, all_rosters: true, ..none });
    let locked = Policy { auth_required: true, ..policy() };
    assert!(!scans(&[], json!({}), locked).everyone);
}

#[test]
fn a_group_that_stays_shut_is_never_scanned() {
    let gate = Gate::new(policy().into());
    let grp = state("grp", managed(Source::Roster, 1, &[("ada", Admin), ("alice", Member)]));
    let unlisted = state(CAPABILITY, GroupStatus::Unlisted);
    let may =
        |group: &Group, names: &[&str], asked: Value| gate.may_scan(group, Asker::new(&reader(names), &filter(&asked)));
    for (names, open) in [(&["alice"][..], true), (&["carol"], false), (&[], false), (&["operator"], true)] {
        assert_eq!(may(&grp, names, json!({"#h": ["grp"]})), open, "{names:?}");
    }
    assert!(!may(&grp, &["operator"], json!({"kinds": [445]})), "an admin key reads rosters alone");
    assert!(!may(&grp, &["alice"], json!({"kinds": [1]})));
    assert!(may(&unlisted, &[], json!({"#h": [CAPABILITY]})));
    assert!(!may(&unlisted, &[], json!({"#h": ["other"]})));
    assert!(!may(&unlisted, &[], json!({"kinds": [450], "#h": [CAPABILITY]})));
}
