//! The relays where the recipient of a request reads, by its own lists as they are stored here.

use nostr_extensions::{Asker, Query, Reader, Scope};
use nostr_protocol::{Filter, Kind, PublicKey, auth::RelayAddress, tag::name};
use nostr_store::{PageBounds, Part};

use super::address::Target;
use crate::app::App;

/// Most relays of one recipient that a request is sent to.
const RELAYS_MAX: usize = 3;
/// Most events of one kind that are read of a recipient: lists are replaceable.
const LISTS_MAX: usize = 1;

/// The relays where the owner reads: those of its 10050, else the read relays of its 10002, but not this one.
pub(super) async fn targets(app: &App, owner: &PublicKey) -> Vec<Target> {
    let own = app.config.server.relay_addresses();
    let mut targets: Vec<Target> = Vec::new();
    for kind in [Kind(10_050), Kind(10_002)] {
        for url in listed(app, owner, kind).await {
            let is_own = RelayAddress::parse(&url).is_some_and(|address| own.contains(&address));
            let target = Target::parse(&url).filter(|target| !is_own && !targets.contains(target));
            targets.extend(target);
            if targets.len() >= RELAYS_MAX {
                return targets;
            }
        }
        if !targets.is_empty() {
            break;
        }
    }
    targets
}

/// The URLs in the owner's list of this kind, as anybody may read it here.
async fn listed(app: &App, owner: &PublicKey, kind: Kind) -> Vec<String> {
    let filter = Filter { kinds: Some(vec![kind]), authors: Some(vec![*owner]), ..Filter::default() };
    let query = Query { filter: filter.clone(), scope: Scope { everyone: true, ..Scope::default() } };
    let now = app.clock.now();
    let bounds = PageBounds { part: Part::WHOLE, events_max: LISTS_MAX, bytes_max: 1 << 18, entries_max: 64 };
    let Ok(page) = app.store.scan(&query, None, app.store.head(), bounds, now).await else { return Vec::new() };
    let reader = Reader::new(&[*owner]);
    let released = page.events.iter().filter_map(|it| app.gate.release(it, Asker::new(&reader, &filter), None, now));
    let mut urls = Vec::new();
    for list in released {
        for tag in list.event().tags().iter() {
            let is_read = match tag.name() {
                name::RELAY => kind == Kind(10_050),
                // Without a marker a relay is for both.
                "r" => kind == Kind(10_002) && tag.get(2).is_none_or(|marker| marker == "read"),
                _ => false,
            };
            urls.extend(tag.value().filter(|_| is_read).map(str::to_owned));
        }
    }
    urls
}
