//! `groups`, `groups/{id}`, `keypackages` and `diagnose`: an operator sees all, a group admin its own groups alone.

use serde_json::{Value, json};

use super::{Console, found, relay_of};
use crate::support::{
    Client, Draft, Keys, TestRelay,
    gateway::{key_package, message, roster, welcome},
    rest::Rest,
};

fn ids(answer: &Value) -> Vec<&str> {
    answer["groups"].as_array().expect("a list").iter().filter_map(|group| group["group_id"].as_str()).collect()
}

async fn publish(client: &mut Client, draft: Draft) {
    client.publish(&draft.sign()).await.ok();
}

#[tokio::test]
async fn an_operator_searches_all_groups() {
    let [admin, alice, bob, carol] = Keys::some();
    let relay = relay_of(&admin).await;
    let mut client = Client::of(&relay, &[&admin]).await;
    for n in 0..120 {
        publish(&mut client, roster(&admin, &format!("team-{n:03}"), 1, "bootstrap", &[&alice])).await;
    }
    found(&mut client, &admin, "other", &bob, &carol).await;
    let console = Console::login(&relay, &admin).await;
    let mut pages = Vec::new();
    let mut path = "/groups?q=team-".to_owned();
    loop {
        let page = console.get(&path).await;
        pages.push(ids(&page).len());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/groups?q=team-&cursor={cursor}");
    }
    assert_eq!(pages, [50, 50, 20]);
    assert_eq!(ids(&console.get("/groups").await)[..2], ["other", "team-000"]);
    assert_eq!(ids(&console.get("/groups?q=team-11").await).len(), 10);
    assert_eq!(ids(&console.get("/groups?q=nothing").await), [""; 0]);
    for key in [carol.hex(), carol.public().to_npub()] {
        assert_eq!(ids(&console.get(&format!("/groups?q={key}")).await), ["other"]);
    }
    let of_alice = console.get(&format!("/groups?q={}", alice.hex())).await;
    assert_eq!((ids(&of_alice).len(), of_alice["next_cursor"].is_string()), (50, true));
    let other = &console.get("/groups").await["groups"][0];
    assert_eq!((&other["member_count"], &other["admin_count"], &other["seq"]), (&json!(2), &json!(1), &json!(2)));
    // A cursor belongs to its question.
    let cursor = of_alice["next_cursor"].as_str().expect("a cursor");
    console.refused(&format!("/groups?cursor={cursor}"), 400).await;
    console.refused("/groups?limit=1000", 400).await;
    console.refused(&format!("/groups?q={}", "x".repeat(129)), 400).await;
}

#[tokio::test]
async fn a_group_admin_sees_its_own_groups_alone() {
    let [admin, alice, bob, carol] = Keys::some();
    let relay = relay_of(&admin).await;
    let mut client = Client::of(&relay, &[&admin]).await;
    found(&mut client, &admin, "mine", &alice, &bob).await;
    found(&mut client, &admin, "mine-too", &alice, &carol).await;
    // Alice is a member here, and no admin.
    found(&mut client, &admin, "theirs", &bob, &alice).await;
    found(&mut client, &admin, "hidden", &bob, &carol).await;
    let console = Console::login(&relay, &alice).await;
    assert_eq!(ids(&console.get("/groups").await), ["mine", "mine-too"]);
    assert_eq!(ids(&console.get("/groups?q=mine-").await), ["mine-too"]);
    assert_eq!(ids(&console.get(&format!("/groups?q={}", bob.hex())).await), ["mine"]);
    for nothing in ["theirs", "hidden"] {
        assert_eq!(ids(&console.get(&format!("/groups?q={nothing}")).await), [""; 0]);
    }
    // Another's group is answered exactly as an absent one.
    let bytes = async |path: &str| {
        let answer = console.ask("GET", path).send_bytes().await;
        String::from_utf8(answer).expect("text").lines().filter(|line| !line.starts_with("date")).collect::<String>()
    };
    for path in ["/groups/", "/keypackages?group="] {
        let absent = bytes(&format!("{path}absent")).await;
        assert!(absent.starts_with("HTTP/1.1 404"), "{absent}");
        for other in ["theirs", "hidden", "no%20id"] {
            assert_eq!(bytes(&format!("{path}{other}")).await, absent, "{path}{other}");
        }
    }
    console.refused("/keypackages", 403).await;
    console.refused(&format!("/keypackages?owner={}", alice.hex()), 403).await;
    // A former admin sees nothing more by its token, and neither does one whom nobody removed from the group.
    publish(&mut client, roster(&admin, "mine", 3, "demote", &[&alice])).await;
    assert_eq!(ids(&console.get("/groups").await), ["mine-too"]);
    console.refused("/groups/mine", 404).await;
    publish(&mut client, roster(&admin, "mine-too", 3, "remove", &[&alice])).await;
    console.refused("/groups/mine-too", 404).await;
    console.refused("/groups", 403).await;
    console.refused("/keypackages?group=mine-too", 404).await;
}

#[tokio::test]
async fn a_group_shows_its_members_and_its_history() {
    let [admin, alice, bob] = Keys::some();
    let relay = relay_of(&admin).await;
    let mut client = Client::of(&relay, &[&admin]).await;
    let named = roster(&admin, "grp", 1, "bootstrap", &[&alice, &bob]).tag(["name", "Our team"]);
    publish(&mut client, named).await;
    let promoted = roster(&admin, "grp", 2, "promote", &[&alice]).tag(["commit_ordering", "strict"]).sign();
    client.publish(&promoted).await.ok();
    let mut member = Client::of(&relay, &[&bob]).await;
    let said = message("grp").created_at(relay.now() + 60).sign();
    member.publish(&said).await.ok();
    for (keys, last_activity) in [(&alice, Some(relay.now() + 60)), (&admin, None)] {
        let group = Console::login(&relay, keys).await.get("/groups/grp").await;
        assert_eq!((&group["display_name"], &group["strict"]), (&json!("Our team"), &json!(true)), "{group}");
        let mut members = [(alice.hex(), "admin"), (bob.hex(), "member")];
        members.sort();
        for (at, (key, role)) in members.iter().enumerate() {
            let member = &group["members"][at];
            assert_eq!((&member["pubkey"], &member["role"]), (&json!(key), &json!(role)));
        }
        let newest = &group["roster"][0];
        assert_eq!((&newest["seq"], &newest["op"], &newest["by"]), (&json!(2), &json!("promote"), &json!(admin.hex())));
        assert_eq!((&newest["subjects"], &newest["event"]), (&json!([alice.hex()]), &promoted.0));
        assert_eq!(group["roster"][1]["op"], "bootstrap");
        // An operator that is no member reads no message, and so not when the last one came.
        let shown = group["last_activity"].as_u64();
        assert_eq!(shown, last_activity.or(group["roster"][0]["created_at"].as_u64()), "{group}");
    }
}

#[tokio::test]
async fn stock_is_shown_by_owner_and_by_group() {
    let [admin, alice, bob, carol] = Keys::some();
    let relay = relay_of(&admin).await;
    let mut client = Client::of(&relay, &[&alice]).await;
    publish(&mut client, welcome(&bob, "grp")).await;
    for (owner, count) in [(&bob, 4), (&carol, 1)] {
        let mut client = Client::of(&relay, &[owner]).await;
        for n in 0..count {
            publish(&mut client, key_package(owner).created_at(relay.now() - n).tag(["cs", "0x0001"])).await;
        }
    }
    let operator = Console::login(&relay, &admin).await;
    let all = operator.get("/keypackages").await;
    let mut expected = vec![(bob.hex(), 4, false), (carol.hex(), 1, true)];
    expected.sort();
    let told = |owner: &Value| (owner["owner"].clone(), owner["unclaimed"].clone(), owner["low"].clone());
    let owners: Vec<_> = all["owners"].as_array().expect("a list").iter().map(told).collect();
    let expected: Vec<_> =
        expected.into_iter().map(|(key, count, low)| (json!(key), json!(count), json!(low))).collect();
    assert_eq!((owners, &all["next_cursor"]), (expected, &json!(null)));
    let one = operator.get(&format!("/keypackages?owner={}", carol.public().to_npub())).await;
    assert_eq!(one["owners"][0]["unclaimed"], 1);
    operator.refused("/keypackages?owner=nobody", 400).await;
    // Anybody may make a key a member. Its stock is shown once it has acted in the group.
    let console = Console::login(&relay, &alice).await;
    let of_bob = async || {
        let answer = console.get(&format!("/keypackages?group=grp&owner={}", bob.hex())).await;
        answer["owners"].as_array().expect("a list").clone()
    };
    assert_eq!((of_bob().await.len(), &of_bob().await[0]["unclaimed"]), (1, &json!(null)));
    let mut member = Client::of(&relay, &[&bob]).await;
    publish(&mut member, message("grp")).await;
    assert_eq!((&of_bob().await[0]["unclaimed"], &of_bob().await[0]["low"]), (&json!(4), &json!(false)));
    let of_carol = console.get(&format!("/keypackages?group=grp&owner={}", carol.hex())).await;
    assert_eq!(of_carol["owners"], json!([]), "she is no member");
}

/// A founder of its own group is a group admin, and learns nothing about other keys by it.
#[tokio::test]
async fn a_founder_of_its_own_group_learns_nothing_of_others() {
    let [admin, mallory, bob] = Keys::some();
    let relay = relay_of(&admin).await;
    let mut client = Client::of(&relay, &[&mallory]).await;
    publish(&mut client, welcome(&bob, "trap")).await;
    let mut victim = Client::of(&relay, &[&bob]).await;
    publish(&mut victim, key_package(&bob).tag(["cs", "0x0001"])).await;
    let note = bob.event(1).sign();
    victim.publish(&note).await.ok();
    let console = Console::login(&relay, &mallory).await;
    let stock = console.get("/keypackages?group=trap").await;
    let of_bob = stock["owners"].as_array().and_then(|it| it.iter().find(|it| it["owner"] == bob.hex())).cloned();
    assert_eq!(of_bob.expect("a member")["unclaimed"], json!(null));
    let ask = async |event: &Value, reader: Value| {
        console.ask("POST", "/diagnose").json(&json!({"event": event, "reader": reader})).send_bare().await.status
    };
    assert_eq!(ask(&note.0, json!(null)).await, 404);
    assert_eq!(ask(&note.0, json!(bob.hex())).await, 404);
    let own = message("trap").sign();
    assert_eq!(ask(&own.0, json!(bob.hex())).await, 404, "whoever is made a member is no more known for it");
    assert_eq!(ask(&own.0, json!(mallory.hex())).await, 200);
    publish(&mut victim, message("trap")).await;
    assert_eq!(ask(&own.0, json!(bob.hex())).await, 200, "a member that has acted in the group");
    assert_eq!(ask(&own.0, json!(admin.hex())).await, 404, "no member");
    assert_eq!(ask(&own.0, json!(null)).await, 200);
    assert_eq!(ask(&message("another").sign().0, json!(null)).await, 404);
    assert_eq!(ask(&welcome(&bob, "trap").sign().0, json!(null)).await, 404);
    assert_eq!(ask(&json!({}), json!(null)).await, 400);
}

/// The store decides about a diagnosis as about an event, so a group admin pays the price of the event.
#[tokio::test]
async fn a_group_admin_pays_for_a_diagnosis_as_for_the_event() {
    let [admin, mallory, bob] = Keys::some();
    let key = admin.public();
    let relay = TestRelay::start(move |config| {
        config.mls_gateway.admin_pubkeys = vec![key];
        config.mls_gateway.rate_limits.max_events_per_minute = 100;
    });
    let relay = relay.await;
    let mut client = Client::of(&relay, &[&mallory]).await;
    publish(&mut client, welcome(&bob, "trap")).await;
    let console = Console::login(&relay, &mallory).await;
    let large = (0..1_900)
        .fold(mallory.event(450).tag(["h", "trap"]).tag(["seq", "7"]).tag(["op", "add"]), |event, n| {
            event.tag(["p", &format!("{n:064x}")])
        });
    let question = json!({"event": large.sign().0, "reader": mallory.hex()});
    let ask = async || console.ask("POST", "/diagnose").json(&question).send_bare().await.status;
    let mut asked = 0;
    while ask().await != 429 {
        asked += 1;
        assert!(asked < 10, "76 events each, of 200 at once");
    }
    assert!(asked > 0);
    let operator = Console::login(&relay, &admin).await;
    for _ in 0..5 {
        assert_eq!(operator.ask("POST", "/diagnose").json(&question).send_bare().await.status, 200);
    }
}

#[tokio::test]
async fn an_operator_diagnoses_like_by_rest() {
    let [admin, alice] = Keys::some();
    let relay = relay_of(&admin).await;
    let question = json!({"event": alice.event(1).sign().0, "reader": alice.hex()});
    let by_rest = Rest::of(&relay, &admin).post("/diagnose", question.to_string()).ok().await;
    let console = Console::login(&relay, &admin).await;
    let by_console = console.ask("POST", "/diagnose").json(&question).ok().await;
    assert_eq!((&by_console, &by_console["write"]["allowed"]), (&by_rest, &json!(true)));
}

#[tokio::test]
async fn key_packages_at_fault_are_listed() {
    let [admin, bob] = Keys::some();
    let key = admin.public();
    let relay = TestRelay::start_alone(move |config| {
        config.mls_gateway.admin_pubkeys = vec![key];
        config.mls_gateway.verify_keypackages = nostr_extensions::policy::VerifyKeyPackages::Log;
    })
    .await;
    let mut client = Client::of(&relay, &[&bob]).await;
    let passed = key_package(&bob).sign();
    client.publish(&passed).await.ok();
    let refused = key_package(&bob).tag(["p", &admin.hex()]).sign();
    client.publish(&refused).await.refused("invalid");
    // Nobody is told to be at fault by an event that it did not sign.
    let mut forged = key_package(&bob).tag(["p", &admin.hex()]).sign();
    forged.0["sig"] = "0".repeat(128).into();
    client.publish(&forged).await.refused("invalid");
    let answer = Console::login(&relay, &admin).await.get("/keypackages/refused").await;
    let told: Vec<_> =
        answer["refused"].as_array().expect("a list").iter().map(|it| (&it["event_id"], &it["refused"])).collect();
    assert_eq!(told, [(&json!(refused.id()), &json!(true)), (&json!(passed.id()), &json!(false))], "{answer}");
    assert!(answer["refused"][0]["reason"].as_str().is_some_and(|reason| reason.contains("p tag")), "{answer}");
}

/// A page that is left open pays for its lists like any reader.
#[tokio::test]
async fn lists_are_paid_from_the_budget_of_reads() {
    let [admin, alice, bob] = Keys::some();
    let key = admin.public();
    let relay = TestRelay::start_alone(move |config| {
        config.mls_gateway.admin_pubkeys = vec![key];
        config.mls_gateway.rate_limits.max_read_cost_per_minute = 2_000;
    })
    .await;
    let mut client = Client::of(&relay, &[&admin]).await;
    for n in 0..20 {
        publish(&mut client, roster(&admin, &format!("grp{n}"), 1, "bootstrap", &[&alice, &bob])).await;
    }
    let console = Console::login(&relay, &admin).await;
    let mut refused = None;
    for _ in 0..300 {
        let answer = console.ask("GET", "/groups").send_bare().await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    assert_eq!(refused.map(|answer| answer.status), Some(429));
}
