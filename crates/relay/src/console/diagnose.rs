//! `POST diagnose`: the body and the answer of REST's door of this name (docs/rules.md, "REST" 15).
//!
//! An operator asks about any event and reader. Anybody can become the admin of a group of its own, and make any key a
//! member of it. So a group admin asks about messages and rosters of its groups alone, for itself, for a reader without
//! a key, and for members that have acted in a group of its; and it pays as for the event, since the store decides.

use nostr_extensions::NostrGroupId;
use nostr_protocol::{Kind, tag::name};
use nostr_store::weight::{Weight, price_of_members};

use super::{door::LoggedIn, groups::administered};
use crate::{
    rest::{Answer, Problem, diagnosed, pay_for_events, read_diagnosis},
    session::archive::Meter,
};

/// Whether a reader may publish an event and is shown it, and by which rule.
pub(super) async fn diagnose(caller: LoggedIn) -> Result<Answer, Problem> {
    let visit = &caller.visit;
    let (event, reader) = read_diagnosis(visit)?;
    if !caller.is_operator() {
        let (kind, tags) = (event.event().kind(), event.event().tags());
        let is_of_group = matches!(kind, Kind::GROUP_MESSAGE | Kind::ROSTER);
        let id = tags.value(name::GROUP).filter(|_| is_of_group).and_then(NostrGroupId::parse);
        let group = administered(visit, id).await?;
        let shown = visit.app().gate.show_to_admin(&group, &visit.caller.reader).ok_or_else(Problem::not_found)?;
        let price = Weight::of(event.event().view()).price().saturating_add(price_of_members(shown.member_count()));
        pay_for_events(&visit.caller, price)?;
        if let Some(key) = reader.primary().filter(|key| *key != caller.key) {
            let is_known = group.has_member(reader.keys())
                && Meter::new(&visit.caller).finds_common_group(&key, &caller.key).await.map_err(Problem::from)?;
            if !is_known {
                return Err(Problem::not_found());
            }
        }
    }
    diagnosed(visit, event, &reader).await
}
