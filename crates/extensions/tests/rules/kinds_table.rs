//! The table of kinds, written out by hand beside the one in the code: a rule that changes shows here in words.

use nostr_extensions::kinds::{
    ADMIN_KINDS, Budget, Deletable, GROUP_KINDS, GroupChange, KEPT_FROM_VANISHED, KEY_KINDS, KINDS, Kept, KindCounter,
    NonResidents, OWNED_BY_RECIPIENTS, Owners, Quota, Readers, rules,
};
use nostr_protocol::{Kind, Lifetime};

/// Columns: the readers; whether admission needs the group's state; the groups it may change; how it is kept; whether
/// an `expiration` may end it; its owners; whether they delete it; whether they take it along when they vanish; the
/// budget; the keys off the whitelist that publish it; its counters (KeyPackages, groups); NIP-11; the quota.
const TABLE: &str = "
    # kind  readers         state changes kept      ends owners   deleted vanish budget   others   count nip-11 quota
      4     author+p        -     -       stored    yes  author   yes     yes    events   -        -     -      direct
      5     everyone/author -     -       stored    -    author   -       yes    events   check    -     -      delete
      6     everyone        -     -       stored    yes  author   yes     yes    events   -        -     -      events
      13    -               -     -       stored    yes  author   yes     yes    events   -        -     -      -
      16    everyone        -     -       stored    yes  author   yes     yes    events   -        -     -      events
      62    everyone        -     all     stored    -    author   -       -      events   check    -     -      vanish
      443   everyone        -     -       stored    yes  author   yes     yes    packages -        k     yes    -
      444   -               -     -       stored    yes  author   yes     yes    events   -        -     -      -
      445   group+unlisted  yes   -       archive   yes  author   refused yes    messages check    g     yes    -
      446   p               -     -       archive   yes  author+p yes     yes    events   -        -     yes    -
      447   p               -     -       stored    yes  author+p yes     yes    events   -        -     yes    -
      448   -               -     -       stored    yes  author   yes     yes    events   -        -     -      -
      449   -               -     -       stored    yes  author   yes     yes    events   -        -     -      -
      450   group+admins    yes   h       stored    -    author   refused -      events   check    g     yes    -
      451   -               -     -       stored    yes  author   yes     yes    events   -        -     -      -
      1059  p               yes   h       stored    yes  author+p yes     yes    wraps    resident -     yes    -
      21059 p               -     -       ephemeral yes  author   yes     yes    wraps    resident -     -      -
      22242 -               -     -       ephemeral yes  author   yes     yes    events   -        -     -      -
      27235 -               -     -       ephemeral yes  author   yes     yes    events   -        -     -      -
      30443 everyone        -     -       stored    yes  author   yes     yes    packages -        k     yes    -
";

/// The line of every kind that the table does not name; `kept` follows from the range (NIP-01).
const OTHERS: &str = "everyone - - kept yes author yes yes events - - - quota";

fn line(kind: Kind) -> String {
    let rules = rules(kind);
    let yes = |set: bool| if set { "yes" } else { "-" };
    let readers = match rules.readers {
        Readers::Everyone => "everyone",
        Readers::EveryoneOrAuthor => "everyone/author",
        Readers::Recipients => "p",
        Readers::AuthorAndRecipients => "author+p",
        Readers::Group { unlisted: true, admin_keys: false } => "group+unlisted",
        Readers::Group { unlisted: false, admin_keys: true } => "group+admins",
        Readers::Group { unlisted: false, admin_keys: false } => "group",
        Readers::Group { unlisted: true, admin_keys: true } => "group+unlisted+admins",
        Readers::Nobody => "-",
    };
    let changes = match rules.changes {
        GroupChange::Nothing => "-",
        GroupChange::NamedGroup => "h",
        GroupChange::EveryGroup => "all",
    };
    let kept = match rules.kept {
        Kept::Stored => "stored",
        Kept::Archived => "archive",
        Kept::Ephemeral => "ephemeral",
    };
    let owners = match rules.owners {
        Owners::Author => "author",
        Owners::AuthorAndRecipients => "author+p",
    };
    let deletable = match rules.deletable {
        Deletable::ByOwners => "yes",
        Deletable::NoEffect => "-",
        Deletable::Refused => "refused",
    };
    let budget = match rules.budget {
        Budget::Events => "events",
        Budget::KeyPackages => "packages",
        Budget::GroupMessages => "messages",
        Budget::GiftWraps => "wraps",
    };
    let others = match rules.non_residents {
        NonResidents::Refused => "-",
        NonResidents::ToResidents => "resident",
        NonResidents::Checked => "check",
    };
    let counters = rules.counters.iter().map(|counter| match counter {
        KindCounter::KeyPackagesStored => 'k',
        KindCounter::GroupsUpdated => 'g',
    });
    let counted: String = counters.collect();
    let counted = if counted.is_empty() { "-" } else { &counted };
    let read = [readers, yes(rules.needs_group), changes, kept, yes(rules.may_expire)];
    let removed = [owners, deletable, yes(rules.vanishes)];
    let quota = match rules.quota {
        None => "-",
        Some(Quota::Events) => "events",
        Some(Quota::DirectMessages) => "direct",
        Some(Quota::Deletions) => "delete",
        Some(Quota::Vanishing) => "vanish",
    };
    [&read[..], &removed, &[budget, others, counted, yes(rules.in_nip11), quota]].concat().join(" ")
}

#[test]
fn each_kind_answers_as_the_table_says() {
    let lines = TABLE.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut named = Vec::new();
    for expected in lines {
        let words: Vec<&str> = expected.split_whitespace().collect();
        let kind = Kind(words[0].parse().unwrap());
        assert_eq!(line(kind), words[1..].join(" "), "{kind}");
        named.push(kind);
    }
    assert_eq!(named, KINDS, "the code's table has the same lines, by number");
}

#[test]
fn every_other_kind_is_public_and_kept_by_its_range() {
    for kind in (0..=u16::MAX).map(Kind).filter(|kind| !KINDS.contains(kind)) {
        let is_kept = kind.lifetime() != Lifetime::Ephemeral;
        let (kept, quota) = if is_kept { ("stored", "events") } else { ("ephemeral", "-") };
        assert_eq!(line(kind), OTHERS.replace("kept", kept).replace("quota", quota), "{kind}");
    }
}

/// The stores plan their queries over these lists.
#[test]
fn the_lists_of_kinds_are_those_of_the_table() {
    assert_eq!(KEY_KINDS, [4, 5, 446, 447, 1059].map(Kind));
    assert_eq!(GROUP_KINDS, [445, 450].map(Kind));
    assert_eq!(ADMIN_KINDS, [450].map(Kind));
    assert_eq!(OWNED_BY_RECIPIENTS, [446, 447, 1059].map(Kind));
    assert_eq!(KEPT_FROM_VANISHED, [62, 450].map(Kind));
    let stored = |kind: &Kind| rules(*kind).kept != Kept::Ephemeral;
    let all = || (0..=u16::MAX).map(Kind).filter(stored);
    assert_eq!(all().filter(|kind| rules(*kind).may_be_for_keys()).collect::<Vec<_>>(), KEY_KINDS);
    assert_eq!(all().filter(|kind| rules(*kind).is_for_group()).collect::<Vec<_>>(), GROUP_KINDS);
    assert_eq!(all().filter(|kind| rules(*kind).is_for_admin_keys()).collect::<Vec<_>>(), ADMIN_KINDS);
    assert_eq!(all().filter(|kind| rules(*kind).is_owned_by_recipients()).collect::<Vec<_>>(), OWNED_BY_RECIPIENTS);
    assert_eq!(all().filter(|kind| !rules(*kind).vanishes).collect::<Vec<_>>(), KEPT_FROM_VANISHED);
}

#[test]
fn rejections_that_list_kinds_list_those_of_the_table() {
    use nostr_extensions::mls_gateway::group::Refusal;
    use nostr_protocol::{Rejection, testing::EventBuilder};

    use crate::common::{NOW, policy, send};

    let undeletable = Rejection::from(Refusal::Undeletable).to_string();
    assert_eq!(undeletable, "blocked: kinds 445 and 450 cannot be deleted; remove them from the request");
    let vanish = EventBuilder::new(62).tag(&["relay", "ALL_RELAYS"]).tag(&["expiration", &(NOW + 9).to_string()]);
    let refused = send(&[], "alice", vanish, &policy(), &[]).unwrap_err().to_string();
    assert_eq!(refused, "invalid: kinds 5, 62 and 450 carry no expiration; remove the tag");
}
