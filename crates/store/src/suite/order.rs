//! The order of commits: of one epoch the first stored commit counts, in every store alike.

use nostr_extensions::{
    GroupRecord, GroupStatus,
    mls_gateway::{
        group::{COMMITS_KEPT_MAX, CommitLog, CommitOrdering, Refusal},
        mls::ContentType::{self, Application, Commit, Proposal},
    },
};
use nostr_protocol::{EventId, testing::EventBuilder};

use super::world::{START, World, deletion, for_groups, id_of, message, new, roster, vanish};
use crate::Saved;

/// A message that shows the header of a PrivateMessage: each character of its content is one byte.
#[must_use]
pub fn private_message(group: &str, epoch: u64, content: ContentType, text: &str) -> EventBuilder {
    let content = match content {
        Application => '\u{1}',
        Proposal => '\u{2}',
        Commit => '\u{3}',
    };
    let epoch: String = epoch.to_be_bytes().map(char::from).iter().collect();
    message(group, &format!("\0\u{1}\0\u{2}\u{3}mls{epoch}{content}{text}"))
}

fn commit(epoch: u64, text: &str) -> EventBuilder {
    private_message("grp", epoch, Commit, text)
}

/// A roster that chooses the order of `grp`, which has alice and bob as members.
fn choice(seq: u64, op: &str, order: &str) -> EventBuilder {
    roster("grp", seq, op, &["alice", "bob"]).tag(&["commit_ordering", order])
}

fn reset(seq: u64, epoch: u64) -> EventBuilder {
    roster("grp", seq, "reset-epoch", &[]).tag(&["epoch", &epoch.to_string()])
}

impl World {
    async fn record(&self) -> GroupRecord {
        match self.group("grp").await.status {
            GroupStatus::Managed(view) => view.record.clone(),
            other => panic!("not managed: {other:?}"),
        }
    }

    /// The epoch of `grp`, as its commits say.
    async fn epoch(&self) -> Option<u64> {
        self.record().await.commits.as_ref().map(CommitLog::epoch)
    }

    /// The answer to alice's message.
    async fn answer(&self, message: &EventBuilder) -> Result<String, String> {
        let answer = self.publish(message, "alice").await.answer();
        answer.map(String::from).map_err(|rejection| rejection.to_string())
    }

    /// The id of a commit that counts.
    async fn counts(&self, epoch: u64, text: &str) -> EventId {
        id_of(&new(self.publish(&commit(epoch, text), "alice").await))
    }
}

fn taken(epoch: u64, id: EventId) -> String {
    format!("epoch {epoch} already has a commit {id}; process it and send yours again")
}

pub async fn of_several_commits_of_one_epoch_the_first_counts(w: &World) {
    new(w.publish(&choice(1, "bootstrap", "strict"), "admin").await);
    let first = w.admitted(&commit(7, "first"), "alice").await;
    let second = w.admitted(&commit(7, "second"), "bob").await;
    let (first_id, second_id) = (first.event().id(), second.event().id());
    let saved = w.save(vec![first.clone(), second]).await;
    let refusal = Refusal::EpochHasCommit { epoch: 7, commit: first_id };
    assert!(matches!(&saved[..], [Saved::New(_), Saved::Refused(it)] if *it == refusal), "{saved:?}");
    assert!(!w.holds(second_id).await);
    assert_eq!(w.answer(&commit(7, "third")).await, Err(format!("blocked: {}", taken(7, first_id))));
    assert!(matches!(w.save(vec![first]).await[..], [Saved::Duplicate]), "the one that counts, sent again");
    assert_eq!(w.epoch().await, Some(8));
    let next = w.counts(8, "second, again").await;
    assert_eq!(w.answer(&commit(8, "late")).await, Err(format!("blocked: {}", taken(8, next))));
    assert_eq!(w.answer(&commit(7, "later")).await, Err(format!("blocked: {}", taken(7, first_id))));
}

pub async fn a_commit_is_for_the_current_epoch_alone(w: &World) {
    new(w.publish(&choice(1, "bootstrap", "strict"), "admin").await);
    w.counts(100, "the first one says the epoch").await;
    let current = |epoch| Refusal::NotTheEpoch { epoch, current: 101 };
    for epoch in [0, 99, 102, u64::MAX - 1] {
        let saved = w.publish(&commit(epoch, "jumps"), "bob").await;
        assert!(matches!(&saved, Saved::Refused(it) if *it == current(epoch)), "{saved:?}");
    }
    // Nothing but a commit moves the group.
    for content in [Application, Proposal] {
        for epoch in [3, 101, 5_000] {
            new(w.publish(&private_message("grp", epoch, content, "any"), "bob").await);
        }
    }
    assert_eq!(w.epoch().await, Some(101));
    let most = COMMITS_KEPT_MAX as u64;
    for epoch in 101..=101 + most {
        w.counts(epoch, "goes on").await;
    }
    let saved = w.publish(&commit(101, "forgotten"), "bob").await;
    assert!(matches!(saved, Saved::Refused(Refusal::NotTheEpoch { epoch: 101, .. })), "{saved:?}");
    let saved = w.publish(&commit(102, "remembered"), "bob").await;
    assert!(matches!(saved, Saved::Refused(Refusal::EpochHasCommit { epoch: 102, .. })), "{saved:?}");
}

pub async fn advisory_stores_the_message_and_says_why_it_does_not_fit(w: &World) {
    new(w.publish(&choice(1, "bootstrap", "advisory"), "admin").await);
    let first = w.counts(7, "first").await;
    let second = w.admitted(&commit(7, "second"), "bob").await;
    let second_id = second.event().id();
    let saved = w.save(vec![second]).await.remove(0);
    assert_eq!(saved.answer(), Ok(taken(7, first).into()));
    assert!(saved.new_event().is_some() && w.holds(second_id).await);
    assert_eq!(w.epoch().await, Some(8), "a commit that does not fit moves nothing");
    let contradicted = private_message("grp", 8, Application, "hi").tag(&["k", "7"]);
    let answer = w.answer(&contradicted).await.expect("it is stored");
    assert!(answer.starts_with("the k tag says epoch 7"), "{answer}");
}

pub async fn a_tag_that_contradicts_the_header_is_refused(w: &World) {
    new(w.publish(&choice(1, "bootstrap", "strict"), "admin").await);
    for content in [Application, Proposal, Commit] {
        let message = |k: &str| private_message("grp", 7, content, k).tag(&["k", k]);
        let answer = w.answer(&message("8")).await.expect_err("a contradiction");
        assert!(answer.starts_with("invalid: the k tag says epoch 8"), "{answer}");
        new(w.publish(&message("7"), "alice").await);
    }
    assert_eq!(w.epoch().await, Some(8));
    // A message without a header has a tag alone, as Marmot's has none.
    new(w.publish(&message("grp", "no header").tag(&["k", "3"]), "alice").await);
}

pub async fn messages_of_an_epoch_that_was_left_have_a_grace(w: &mut World) {
    w.policy.commit_ordering = CommitOrdering::Strict;
    w.policy.commit_grace_secs = 60;
    new(w.publish(&roster("grp", 1, "bootstrap", &["alice", "bob"]), "admin").await);
    new(w.publish_at(START, &commit(7, "commit"), "alice").await);
    let message = |content, epoch, text| private_message("grp", epoch, content, text);
    for content in [Application, Proposal] {
        for (secs, text) in [(0, "at once"), (59, "in time")] {
            new(w.publish_at(START + secs, &message(content, 7, text), "bob").await);
        }
        for (epoch, text) in [(7, "late"), (2, "of an older epoch")] {
            let saved = w.publish_at(START + 60, &message(content, epoch, text), "bob").await;
            let refusal = Refusal::NotTheEpoch { epoch, current: 8 };
            assert!(matches!(&saved, Saved::Refused(it) if *it == refusal), "{saved:?}");
        }
        new(w.publish_at(START + 60, &message(content, 8, "of the present epoch"), "bob").await);
    }
}

/// A commit that counts is there for every member for as long as the archive keeps messages.
pub async fn a_commit_that_ends_early_is_none(w: &World) {
    new(w.publish(&choice(1, "bootstrap", "strict"), "admin").await);
    let ends = |event: EventBuilder, secs: u64| event.tag(&["expiration", &(START + secs).to_string()]);
    let archive_secs = w.policy.archive_secs.expect("an archive");
    for content in [Commit, Proposal] {
        for secs in [5, archive_secs - 1] {
            let saved = w.publish(&ends(private_message("grp", 7, content, "ends"), secs), "alice").await;
            assert!(matches!(&saved, Saved::Refused(Refusal::HandshakeExpires)), "{saved:?}");
        }
    }
    new(w.publish(&ends(private_message("grp", 6, Application, "ends"), 5), "alice").await);
    assert_eq!(w.epoch().await, None);
    new(w.publish(&ends(commit(7, "as long as the archive"), archive_secs), "alice").await);
    assert_eq!(w.epoch().await, Some(8));
    // A relay whose order is advisory stores it, and it ends no epoch.
    new(w.publish(&choice(2, "add", "advisory"), "admin").await);
    let answer = w.answer(&ends(commit(8, "ends"), 5)).await.expect("it is stored");
    assert!(answer.contains("leave out the expiration"), "{answer}");
    assert_eq!(w.epoch().await, Some(8));
}

/// The member makes the key that signs its commit, and could tear the commit out of the group by it.
pub async fn a_commit_stays_when_its_key_vanishes(w: &World) {
    new(w.publish(&choice(1, "bootstrap", "strict"), "admin").await);
    let id = w.send(&commit(7, "commit"), "throw-away", "alice").await;
    let other = w.send(&private_message("grp", 7, Application, "no commit"), "throw-away", "alice").await;
    new(w.publish(&vanish(START), "throw-away").await);
    for _ in 0..2 {
        assert!(w.holds(id).await && !w.holds(other).await);
        w.sweep(START + 10).await;
    }
    // A deletion of the key that vanished finds it as well, and nobody deletes it.
    let saved = w.publish(&deletion(&[id]).at(START + 1), "throw-away").await;
    assert!(matches!(saved, Saved::Refused(Refusal::Undeletable)), "{saved:?}");
    assert_eq!(w.find(r#"{"kinds":[445]}"#, for_groups(&["grp"])).await, [id]);
    assert_eq!(w.answer(&commit(7, "another")).await, Err(format!("blocked: {}", taken(7, id))));
}

pub async fn an_admin_frees_an_epoch(w: &World) {
    new(w.publish(&choice(1, "bootstrap", "strict").tag(&["role", "admin"]), "admin").await);
    let good = w.counts(6, "good").await;
    w.counts(7, "bad").await;
    new(w.publish(&reset(2, 7), "alice").await);
    assert_eq!(w.epoch().await, Some(7));
    assert_eq!(w.answer(&commit(6, "late")).await, Err(format!("blocked: {}", taken(6, good))), "6 is not freed");
    w.counts(7, "better").await;
    // A wrong first commit put the group at an epoch that it never had, or a commit came over another relay.
    for (seq, epoch) in [(3, 5_000), (4, 2), (5, 0)] {
        new(w.publish(&reset(seq, epoch), "bob").await);
        w.counts(epoch, "goes on").await;
    }
    let saved = w.publish(&reset(6, 1), "bob").await;
    assert!(matches!(saved, Saved::Refused(Refusal::ChangesNothing)), "{saved:?}");
    // The first commit that is seen no longer sets the epoch.
    new(w.publish(&reset(6, 40), "bob").await);
    let saved = w.publish(&commit(41, "jumps"), "alice").await;
    assert!(matches!(saved, Saved::Refused(Refusal::NotTheEpoch { current: 40, .. })), "{saved:?}");
}

pub async fn a_roster_chooses_the_order_of_its_group(w: &mut World) {
    new(w.publish(&roster("grp", 1, "bootstrap", &["alice", "bob"]), "admin").await);
    for text in ["one", "two"] {
        new(w.publish(&commit(7, text), "alice").await);
    }
    assert_eq!(w.epoch().await, None, "without an order nothing is remembered");
    // The choice alone is a change, and the same choice again is none.
    new(w.publish(&choice(2, "add", "strict"), "admin").await);
    assert_eq!(w.record().await.commit_ordering, Some(CommitOrdering::Strict));
    let saved = w.publish(&choice(3, "add", "strict"), "admin").await;
    assert!(matches!(saved, Saved::Refused(Refusal::ChangesNothing)), "{saved:?}");
    w.counts(9, "the first one that is seen").await;
    assert!(matches!(w.publish(&commit(9, "late"), "bob").await, Saved::Refused(_)));
    // Other rosters leave choice and epoch alone.
    new(w.publish(&roster("grp", 3, "add", &["carol"]), "admin").await);
    assert!(matches!(w.publish(&commit(9, "later"), "carol").await, Saved::Refused(_)));
    new(w.publish(&choice(4, "add", "off"), "admin").await);
    new(w.publish(&commit(9, "anything goes"), "bob").await);
    assert_eq!(w.epoch().await, None);
    // The choice of the group stands over the operator's.
    w.policy.commit_ordering = CommitOrdering::Strict;
    new(w.publish(&commit(9, "still"), "bob").await);
    new(w.publish(&roster("other", 1, "bootstrap", &["alice"]), "admin").await);
    new(w.publish(&private_message("other", 1, Commit, "first"), "alice").await);
    let second = w.publish(&private_message("other", 1, Commit, "second"), "alice").await;
    assert!(matches!(second, Saved::Refused(Refusal::EpochHasCommit { epoch: 1, .. })), "{second:?}");
    // An operator that turns the order off has the relay forget an epoch that the group has left since.
    w.policy.commit_ordering = CommitOrdering::Off;
    new(w.publish(&private_message("other", 2, Commit, "unseen"), "alice").await);
    w.policy.commit_ordering = CommitOrdering::Strict;
    new(w.publish(&private_message("other", 9, Commit, "the first one that is seen"), "alice").await);
}
