//! The order of commits: the form of rosters that set it, and the type of a message in its header (docs/rules.md,
//! "Commit order").

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nostr_extensions::{
    Effect, Policy,
    mls_gateway::{
        deletion::vanishes,
        group::{CommitLog, CommitOrdering, OrderedMessage},
        mls::{ContentType, Header, header_of_content},
    },
};
use nostr_protocol::{
    EventId,
    testing::{EventBuilder, key, keypair},
};
use proptest::prelude::*;

use crate::common::{CAPABILITY, NOW, grp, letter, policy, send};

/// A PublicMessage of epoch 7 from this sender, with so much authenticated data, up to its content type.
fn public(sender: u8, data: usize, content: u8) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, 1, 5];
    bytes.extend(b"group");
    bytes.extend(7_u64.to_be_bytes());
    bytes.push(sender);
    bytes.extend(if sender < 3 { &[0, 0, 0, 9][..] } else { &[] });
    match data {
        length @ 0..64 => bytes.push(length as u8),
        length @ 64..16_384 => bytes.extend((length as u16 | 0x4000).to_be_bytes()),
        length => bytes.extend((length as u32 | 0x8000_0000).to_be_bytes()),
    }
    bytes.extend(vec![0xab; data]);
    bytes.push(content);
    bytes
}

fn private(content: u8) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, 2, 5];
    bytes.extend(b"group");
    bytes.extend(7_u64.to_be_bytes());
    bytes.push(content);
    bytes
}

/// The content with one character for each byte.
fn characters(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn content_of(bytes: &[u8]) -> Option<ContentType> {
    let [of_base64, of_characters] = [STANDARD.encode(bytes), characters(bytes)].map(|text| header_of_content(&text));
    assert_eq!(of_base64, of_characters);
    let header = of_base64.unwrap();
    assert_eq!((header.mls_group_id, header.epoch), (b"group".to_vec(), 7));
    header.content
}

#[test]
fn a_header_says_whether_the_message_is_a_commit() {
    use ContentType::{Application, Commit, Proposal};
    for (byte, content) in
        [(0, None), (1, Some(Application)), (2, Some(Proposal)), (3, Some(Commit)), (4, None), (255, None)]
    {
        assert_eq!(content_of(&private(byte)), content);
        for sender in 1..=4 {
            for data in [0, 1, 2, 3, 63, 64, 250, 280, 16_383, 16_384, 150_000] {
                assert_eq!(content_of(&public(sender, data, byte)), content, "{sender} {data}");
            }
        }
    }
    for sender in [0, 5, 255] {
        assert_eq!(content_of(&public(sender, 0, 3)), None, "no sender of RFC 9420");
    }
    let cut = public(1, 1_000, 3);
    assert_eq!(content_of(&cut[..cut.len() - 1]), None);
}

#[test]
fn a_character_that_is_no_byte_shows_no_header() {
    let text = characters(&private(3));
    assert_eq!(header_of_content(&text).unwrap().content, Some(ContentType::Commit));
    assert_eq!(header_of_content(&text.replace('g', "\u{100}")), None);
}

fn order_of(h: &str, content: &str, tags: &[&str]) -> Option<OrderedMessage> {
    let event = tags.iter().fold(EventBuilder::new(445).tag(&["h", h]).content(content), |it, k| it.tag(&["k", k]));
    let policy = Policy { commit_ordering: CommitOrdering::Strict, commit_grace_secs: 9, ..policy() };
    match send(&["alice"], "throw-away", event, &policy, &[grp()]).unwrap().effect() {
        Effect::GroupMessage { order, .. } => *order,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_a_managed_groups_message_with_a_header_has_a_place_in_the_order() {
    let commit = STANDARD.encode(private(3));
    let contradicted_by = |tags: &[&str]| order_of("grp", &commit, tags).unwrap().contradicted_by;
    assert_eq!(
        order_of("grp", &commit, &[]),
        Some(OrderedMessage {
            epoch: 7,
            content: ContentType::Commit,
            contradicted_by: None,
            ends_early: false,
            default: CommitOrdering::Strict,
            grace_secs: 9
        })
    );
    assert_eq!(contradicted_by(&["7"]), None);
    assert_eq!(contradicted_by(&["8"]), Some(8));
    assert_eq!(contradicted_by(&["7", "0"]), Some(0), "any of them counts");
    assert_eq!(contradicted_by(&["", "seven", "-7"]), None, "that says no epoch");
    assert_eq!(order_of(CAPABILITY, &commit, &["8"]), None, "anyone writes to an unlisted group");
    for content in ["", "hi", "AAEAAg==", &STANDARD.encode(private(9)), &STANDARD.encode([7; 300])] {
        assert_eq!(order_of("grp", content, &["8"]), None, "{content}");
    }
    let mut last = private(3);
    last[10..18].fill(0xff);
    assert_eq!(order_of("grp", &STANDARD.encode(last), &[]), None, "no epoch comes after it");
}

#[test]
fn rosters_that_set_an_order_have_its_form() {
    let publish = |op: &str, tags: &[&[&str]]| {
        let event = EventBuilder::new(450).tag(&["h", "grp"]).tag(&["seq", "6"]).tag(&["op", op]);
        let event = tags.iter().fold(event, |event, tag| event.tag(tag));
        send(&["ada"], "ada", event, &policy(), &[grp()])
    };
    let changes = |op: &str, tags: &[&[&str]]| match publish(op, tags).unwrap().effect() {
        Effect::Roster(change) => (change.commit_ordering, change.epoch, change.keys.len()),
        other => panic!("{other:?}"),
    };
    let key = "9de25fb3c09b190fde33ef22d1c761bee80a2965b74a06d4af404cf5006e91cd";
    assert_eq!(changes("add", &[&["p", key]]), (None, None, 1));
    for order in CommitOrdering::ALL {
        let tag = ["commit_ordering", order.as_str()];
        assert_eq!(changes("add", &[&["p", key], &tag]), (Some(order), None, 1));
    }
    for wrong in ["", "Strict", "on"] {
        assert_eq!(letter(&publish("add", &[&["p", key], &["commit_ordering", wrong]])), 'i', "{wrong}");
    }
    assert_eq!(changes("reset-epoch", &[&["epoch", "7"]]), (None, Some(7), 0));
    assert_eq!(changes("add", &[&["p", key], &["epoch", "7"]]), (None, None, 1), "no other op sets an epoch");
    assert_eq!(letter(&publish("reset-epoch", &[])), 'i');
    for wrong in ["", "-1", "18446744073709551615"] {
        assert_eq!(letter(&publish("reset-epoch", &[&["epoch", wrong]])), 'i', "{wrong}");
    }
    assert_eq!(letter(&publish("reset-epoch", &[&["epoch", "7"], &["epoch", "7"]])), 'i');
    assert_eq!(letter(&publish("reset-epoch", &[&["epoch", "7"], &["p", key]])), 'i', "it names no member");
}

#[test]
fn a_member_that_leaves_sets_no_order_and_frees_no_epoch() {
    let by = |name: &str, op: &str, extra: &[&str]| {
        let event = EventBuilder::new(450).tag(&["h", "grp"]).tag(&["seq", "6"]).tag(&["op", op]).tag(extra);
        send(&[name], name, event, &policy(), &[grp()])
    };
    let refused = by("alice", "reset-epoch", &["epoch", "7"]).map(|admitted| match admitted.effect() {
        Effect::Roster(change) => {
            let status = grp().status;
            nostr_extensions::mls_gateway::group::apply_roster(&status, change, 1).unwrap_err()
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(refused.unwrap(), nostr_extensions::mls_gateway::group::Refusal::NotAdmin);
    assert_eq!(letter(&by("carol", "reset-epoch", &["epoch", "7"])), 'r');
}

/// The order by a list that is never cut: the epoch of each commit that counts.
fn epochs(commits: &[(u64, u8)]) -> Vec<u64> {
    let mut counted: Vec<(u64, u8)> = Vec::new();
    for (epoch, id) in commits {
        let current = counted.last().map_or(*epoch, |(last, _)| last + 1);
        if *epoch == current && !counted.contains(&(*epoch, *id)) {
            counted.push((*epoch, *id));
        }
    }
    counted.into_iter().map(|(epoch, _)| epoch).collect()
}

proptest! {
    /// A log that is written and read back after each commit counts the commits that a plain list counts.
    #[test]
    fn a_log_counts_one_commit_for_each_epoch(commits in prop::collection::vec((0_u64..40, any::<u8>()), 0..200)) {
        let (mut log, mut counted): (Option<CommitLog>, Vec<u64>) = (None, Vec::new());
        for (n, (epoch, id)) in commits.iter().enumerate() {
            let header = Header { mls_group_id: Vec::new(), epoch: *epoch, content: Some(ContentType::Commit) };
            let message = OrderedMessage::new(&header, std::iter::empty(), CommitOrdering::Strict, 0).unwrap();
            let id = EventId::from_bytes([*id; 32]);
            if let Ok(ruling) = message.rule(None, log.as_ref(), id, n as u64)
                && let Some(next) = ruling.log
            {
                counted.push(*epoch);
                let json = serde_json::to_string(&next).unwrap();
                log = serde_json::from_str(&json).unwrap();
                prop_assert_eq!(&log, &next);
                prop_assert!(json.len() < 2_000);
            }
        }
        prop_assert_eq!(counted, epochs(&commits));
    }
}

#[test]
fn a_log_that_cannot_be_is_not_read() {
    let id = "ab".repeat(32);
    let read = |json: String| serde_json::from_str::<CommitLog>(&json).is_ok();
    assert!(read(format!(r#"{{"epoch":1,"commits":[["{id}",5]]}}"#)));
    assert!(!read(format!(r#"{{"epoch":0,"commits":[["{id}",5]]}}"#)), "more commits than epochs");
    assert!(!read(r#"{"epoch":1,"commits":[["ab",5]]}"#.to_owned()));
    let many = vec![format!(r#"["{id}",5]"#); 17].join(",");
    assert!(!read(format!(r#"{{"epoch":99,"commits":[{many}]}}"#)));
}

#[test]
fn a_commit_alone_stays_when_the_key_that_signed_it_vanishes() {
    for (content, goes) in [(1, true), (2, true), (3, false)] {
        for text in [STANDARD.encode(private(content)), characters(&private(content))] {
            let event = EventBuilder::new(445).tag(&["h", "grp"]).at(NOW).content(text).event(&keypair("throw-away"));
            assert_eq!(vanishes(event.view(), &key("throw-away"), NOW), goes, "{content}");
        }
    }
    let note = EventBuilder::new(1).at(NOW).content(STANDARD.encode(private(3))).event(&keypair("throw-away"));
    assert!(vanishes(note.view(), &key("throw-away"), NOW), "no message to a group");
}
