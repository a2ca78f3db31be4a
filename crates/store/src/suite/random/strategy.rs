//! Random steps, made so that they often name the same things.

use proptest::{collection::vec, option, prelude::*};

use super::{Counted, Draft, Search, Step};

fn small() -> impl Strategy<Value = u8> {
    0..16_u8
}

/// The one value as often as all others together.
fn mostly(value: u8, others: std::ops::Range<u8>) -> impl Strategy<Value = u8> {
    prop_oneof![Just(value), others]
}

fn draft() -> impl Strategy<Value = Draft> {
    let lives = || option::weighted(0.3, any::<u8>());
    let key = || 0..4_u8;
    prop_oneof![
        3 => (key(), small(), small(), lives()).prop_map(|(by, text, ago, lives)| Draft::Note { by, text, ago, lives }),
        3 => (key(), 0..3_u8, 0..2_u8, small(), small(), lives())
            .prop_map(|(by, kind, d, text, ago, lives)| Draft::Versioned { by, kind, d, text, ago, lives }),
        2 => (key(), key(), any::<bool>(), small())
            .prop_map(|(by, to, noise, ago)| Draft::Direct { by, to, noise, ago }),
        1 => key().prop_map(|by| Draft::Ephemeral { by }),
        4 => (key(), key(), 0..4_u8, small(), any::<u8>(), 0..8_u8).prop_map(
            |(by, reader, group, text, epoch, content)| Draft::Message { by, reader, group, text, epoch, content }
        ),
        3 => (key(), key(), option::of(0..4_u8), small())
            .prop_map(|(by, to, group, text)| Draft::Wrap { by, to, group, text }),
        5 => roster(),
        6 => (key(), 0..8_u8, option::weighted(0.3, 0..8_u8), option::of(0..2_u8), small(), lives()).prop_map(
            |(by, text, reference, d, ago, lives)| Draft::KeyPackage { by, text, reference, d, ago, lives }
        ),
        3 => (key(), vec(any::<u8>(), 1..4), small()).prop_map(|(by, targets, ago)| Draft::Delete { by, targets, ago }),
        1 => (key(), 0..4_u8, 0..2_u8, small())
            .prop_map(|(by, kind, d, ago)| Draft::DeleteAddress { by, kind, d, ago }),
        1 => (key(), small()).prop_map(|(by, ago)| Draft::Vanish { by, ago }),
        2 => any::<u8>().prop_map(Draft::Again),
    ]
}

fn roster() -> impl Strategy<Value = Draft> {
    let who = (mostly(3, 0..4), 0..4_u8, any::<u8>());
    (who, mostly(0, 0..7), 1..16_u8, any::<bool>(), any::<bool>(), 0..16_u8).prop_map(
        |((by, group, seq), op, members, admins, force, order)| Draft::Roster {
            by,
            group,
            seq,
            op,
            members,
            admins,
            force,
            order,
        },
    )
}

fn search() -> impl Strategy<Value = Search> {
    let filter = (
        option::of(1..4_096_u16),
        option::weighted(0.3, 1..16_u8),
        option::weighted(0.3, 1..32_u8),
        option::weighted(0.3, 1..16_u8),
        option::weighted(0.2, vec(any::<u8>(), 1..8)),
        option::weighted(0.2, small()),
        option::weighted(0.2, small()),
    );
    let scope = (any::<bool>(), 0..16_u8, 0..16_u8, any::<bool>());
    let bounds = (option::weighted(0.3, any::<u8>()), 1..20_u8, 1..20_u8);
    (filter, scope, bounds).prop_map(
        |(
            (kinds, authors, topics, groups_named, ids, since, until),
            (everyone, keys, groups, all_rosters),
            (up_to, events_max, entries_max),
        )| Search {
            kinds,
            authors,
            topics,
            groups_named,
            ids,
            since,
            until,
            everyone,
            keys,
            groups,
            all_rosters,
            up_to,
            events_max,
            entries_max,
        },
    )
}

/// A step at random.
pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => vec(draft(), 1..6).prop_map(Step::Save),
        6 => search().prop_map(Step::Search),
        4 => claim(),
        2 => (0..4_u8, any::<u8>()).prop_map(|(owner, n)| Step::Request { owner, n }),
        1 => Just(Step::Sweep),
        2 => prop_oneof![8 => 0..40_u16, 1 => 3_000..4_000_u16].prop_map(|secs| Step::Wait { secs }),
        1 => Just(Step::Reopen),
    ]
}

fn claim() -> impl Strategy<Value = Step> {
    let limits = (0..4_u8, option::of(0..4_u8));
    let receipt = option::weighted(0.4, (0..2_u8, 0..2_u8));
    let counted = (0..4_u8, 0..2_u8, any::<bool>(), receipt).prop_map(|(by, address, is_stranger, receipt)| Counted {
        by,
        address,
        is_stranger,
        receipt,
    });
    let claim = (0..4_u8, 0..4_u8, 0..4_u8, 0..4_u8, option::of(0..16_u8), limits, option::of(counted));
    claim.prop_map(|(owner, most, used, kinds, since, limits, counted)| Step::Claim {
        owner,
        most,
        used,
        kinds,
        since,
        limits,
        counted,
    })
}
