//! `GET groups`, `groups/{id}`, its members and its rosters.

use std::time::Duration;

use serde_json::{Value, json};

use super::relay_of;
use crate::support::{
    Client, Keys, TestRelay, WAIT,
    gateway::{capability, message, roster, welcome},
    rest::{Rest, problem},
};

/// A relay with the group `grp_abc123` of alice (admin), bob and carol, whose last epoch is 42.
async fn scene(admin: &Keys, [alice, bob, carol]: [&Keys; 3]) -> TestRelay {
    let relay = relay_of(admin).await;
    let mut writer = Client::of(&relay, &[admin, alice]).await;
    let founding = roster(admin, "grp_abc123", 1, "bootstrap", &[alice]).tag(["role", "admin"]);
    writer.publish(&founding.tag(["name", "Team Chat"]).sign()).await.ok();
    writer.publish(&roster(alice, "grp_abc123", 2, "add", &[bob, carol]).sign()).await.ok();
    writer.publish(&message("grp_abc123").tag(["k", "42"]).sign()).await.ok();
    relay
}

#[tokio::test]
async fn a_group_is_shown_as_the_specification_has_it() {
    let [admin, alice, bob, carol] = Keys::some();
    let relay = scene(&admin, [&alice, &bob, &carol]).await;
    for reader in [&alice, &bob, &admin] {
        let ask = async || Rest::of(&relay, reader).get("/groups/grp_abc123").ok().await;
        let mut shown = ask().await;
        // Over Firestore another instance writes the epoch a second later.
        for _ in 0..WAIT.as_secs() {
            if shown["last_epoch"] == 42 {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            shown = ask().await;
        }
        let created_at = shown["created_at"].as_str().expect("a time").to_owned();
        assert!(created_at.ends_with('Z') && created_at.len() == "2025-01-01T00:00:00Z".len(), "{created_at}");
        let expected = json!({"group_id": "grp_abc123", "display_name": "Team Chat", "member_count": 3,
            "last_epoch": 42, "created_at": created_at, "source": "roster", "seq": 2});
        assert_eq!(shown, expected);
    }
    // Percent-encoded, the id is the same.
    let encoded = Rest::of(&relay, &bob).get("/groups/grp%5Fabc123").ok().await;
    assert_eq!(encoded["group_id"], "grp_abc123");
    let mut writer = Client::of(&relay, &[&admin]).await;
    writer.publish(&roster(&admin, "grp_b", 1, "bootstrap", &[&bob]).sign()).await.ok();
    let young = Rest::of(&relay, &bob).get("/groups/grp_b").ok().await;
    assert_eq!((&young["display_name"], &young["last_epoch"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn members_and_rosters_are_listed_in_pages() {
    let [admin, alice, bob, carol] = Keys::some();
    let relay = scene(&admin, [&alice, &bob, &carol]).await;
    let rest = Rest::of(&relay, &carol);
    let mut expected = vec![(alice.hex(), "admin"), (bob.hex(), "member"), (carol.hex(), "member")];
    expected.sort();
    let expected: Vec<Value> =
        expected.into_iter().map(|(pubkey, role)| json!({"pubkey": pubkey, "role": role})).collect();
    let whole = rest.get("/groups/grp_abc123/members").ok().await;
    assert_eq!(whole, json!({"members": expected, "next_cursor": null}));
    let first = rest.get("/groups/grp_abc123/members?limit=2").ok().await;
    assert_eq!(first["members"], json!(expected[..2]));
    let cursor = first["next_cursor"].as_str().expect("a cursor");
    let second = rest.get(&format!("/groups/grp_abc123/members?limit=2&cursor={cursor}")).ok().await;
    assert_eq!(second, json!({"members": expected[2..], "next_cursor": null}));
    // Another reader's cursor, and that of another list.
    Rest::of(&relay, &bob).get(&format!("/groups/grp_abc123/members?cursor={cursor}")).refused(400).await;
    rest.get(&format!("/groups/grp_abc123/roster?cursor={cursor}")).refused(400).await;

    let rosters = rest.get("/groups/grp_abc123/roster").ok().await;
    let seqs = |list: &Value| -> Vec<String> {
        let events = list["events"].as_array().expect("events").iter();
        let seq = |event: &Value| event["tags"][1][1].as_str().expect("a seq").to_owned();
        events.map(seq).collect()
    };
    assert_eq!(seqs(&rosters).len(), 2);
    let mut paged = Vec::new();
    let mut query = "?limit=1".to_owned();
    loop {
        let page = rest.get(&format!("/groups/grp_abc123/roster{query}")).ok().await;
        paged.extend(seqs(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=1&cursor={cursor}");
    }
    assert_eq!(paged, seqs(&rosters), "pages give each roster once, also of one second");
    for wrong in ["?limit=0", "?limit=-1", "?limit=x", "?limit=1&limit=2", "?page=2", "?cursor=", "?cursor=made-up"] {
        rest.get(&format!("/groups/grp_abc123/members{wrong}")).refused(400).await;
    }
}

#[tokio::test]
async fn ones_own_groups_are_listed() {
    let [admin, alice, bob, eve] = Keys::some();
    let relay = relay_of(&admin).await;
    let mut writer = Client::of(&relay, &[&admin]).await;
    for n in 0..5 {
        let members: &[&Keys] = if n == 3 { &[&alice] } else { &[&alice, &bob] };
        writer.publish(&roster(&admin, &format!("grp_{n}"), 1, "bootstrap", members).sign()).await.ok();
    }
    let ids = |list: &Value| -> Vec<String> {
        let groups = list["groups"].as_array().expect("groups").iter();
        groups.map(|group| group["group_id"].as_str().expect("an id").to_owned()).collect()
    };
    let rest = Rest::of(&relay, &bob);
    let whole = rest.get("/groups").ok().await;
    assert_eq!(ids(&whole), ["grp_0", "grp_1", "grp_2", "grp_4"]);
    assert_eq!(whole["groups"][0], rest.get("/groups/grp_0").ok().await);
    let mut paged = Vec::new();
    let mut query = "?limit=3".to_owned();
    loop {
        let page = rest.get(&format!("/groups{query}")).ok().await;
        paged.extend(ids(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=3&cursor={cursor}");
    }
    assert_eq!(paged, ids(&whole));
    assert_eq!(Rest::of(&relay, &eve).get("/groups").ok().await, json!({"groups": [], "next_cursor": null}));
    // An admin key is not a member.
    assert_eq!(ids(&Rest::of(&relay, &admin).get("/groups").ok().await).len(), 0);
    // A removal is in force with its OK, on every instance.
    writer.publish(&roster(&admin, "grp_0", 2, "remove", &[&bob]).sign()).await.ok();
    assert_eq!(ids(&rest.at(relay.next_address()).get("/groups").ok().await), ["grp_1", "grp_2", "grp_4"]);
    rest.at(relay.next_address()).get("/groups/grp_0").refused(404).await;
}

#[tokio::test]
async fn a_hidden_group_is_answered_as_one_that_does_not_exist() {
    let [admin, alice, bob, eve] = Keys::some();
    let relay = relay_of(&admin).await;
    let unlisted = capability();
    let mut writer = Client::of(&relay, &[&admin, &alice]).await;
    writer.publish(&roster(&admin, "grp", 1, "bootstrap", &[&bob]).sign()).await.ok();
    writer.publish(&welcome(&bob, "grp_wrapped").sign()).await.ok();
    writer.publish(&message(&unlisted).sign()).await.ok();
    writer.publish(&roster(&admin, "left", 1, "bootstrap", &[&bob, &eve]).sign()).await.ok();
    writer.publish(&roster(&admin, "left", 2, "remove", &[&eve]).sign()).await.ok();
    let outside = Rest::of(&relay, &eve);
    let undated = |head: &str| -> Vec<String> {
        head.lines().filter(|line| !line.starts_with("date: ")).map(str::to_owned).collect()
    };
    for rest in ["", "/members", "/roster"] {
        let absent = outside.get(&format!("/groups/absent{rest}")).send().await;
        problem(&absent, 404, rest);
        for hidden in ["grp", "grp_wrapped", "left", &unlisted] {
            let answer = outside.get(&format!("/groups/{hidden}{rest}")).send().await;
            assert_eq!((undated(&answer.head), &answer.body), (undated(&absent.head), &absent.body), "{hidden}{rest}");
        }
        for id in ["a%2fb", "%00", "%2e%2e", "..%2f..%2fmetrics", "%ff", "%20", &"a".repeat(3_000)] {
            let answer = outside.get(&format!("/groups/{id}{rest}")).send().await;
            assert_eq!((undated(&answer.head), &answer.body), (undated(&absent.head), &absent.body), "{id}{rest}");
        }
        assert!(Rest::anonymous(&relay).get(&format!("/groups/grp{rest}")).refused(401).await.contains("NIP-98"));
    }
    // The owner of the wrap's group, whose group it is by the wrap.
    let shown = Rest::of(&relay, &bob).get("/groups/grp_wrapped").ok().await;
    assert_eq!(shown["member_count"], 2);
    assert_eq!((&shown["source"], &shown["seq"]), (&json!("giftwrap"), &json!(0)));
}

/// A reader spends as much of its budget on a group that is hidden as on one that does not exist.
#[tokio::test]
async fn a_hidden_group_costs_as_much_as_an_absent_one() {
    let [admin, alice, bob] = Keys::some();
    let relay = TestRelay::start_alone(|config| {
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
        config.mls_gateway.rate_limits.max_read_cost_per_minute = 600;
    })
    .await;
    let mut writer = Client::of(&relay, &[&admin]).await;
    writer.publish(&roster(&admin, "grp", 1, "bootstrap", &[&alice]).sign()).await.ok();
    let spent = async |reader: &Keys, path: &str, allowed: u16| {
        let mut asked = 0;
        loop {
            let answer = Rest::of(&relay, reader).get(path).send().await;
            if answer.status == 429 {
                // The address gets its budget back.
                relay.advance(120);
                return asked;
            }
            assert_eq!(answer.status, allowed);
            asked += 1;
        }
    };
    for (hidden, absent, allowed) in [
        ("/groups/grp", "/groups/absent", 404),
        ("/groups/grp/members", "/groups/absent/members", 404),
        ("/groups/grp/roster", "/groups/absent/roster", 404),
        ("/messages?group=grp", "/messages?group=absent", 200),
    ] {
        assert_eq!(spent(&bob, hidden, allowed).await, spent(&bob, absent, allowed).await, "{hidden}");
    }
}
