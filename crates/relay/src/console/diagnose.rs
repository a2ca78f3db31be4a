//! `POST diagnose`: the body and the answer of REST's door of this name (docs/rules.md, "REST" 15).
//!
//! An operator asks about any event and reader. Anybody can become the admin of a group of its own, so a group admin
//! asks about messages and rosters of its groups alone, for their members and for a reader without a key.

use nostr_extensions::NostrGroupId;
use nostr_protocol::{Kind, tag::name};

use super::{door::LoggedIn, groups::administered};
use crate::rest::{Answer, Problem, diagnosed, read_diagnosis};

/// Whether a reader may publish an event and is shown it, and by which rule.
pub(super) async fn diagnose(caller: LoggedIn) -> Result<Answer, Problem> {
    let visit = &caller.visit;
    let (event, reader) = read_diagnosis(visit)?;
    if !caller.is_operator() {
        let (kind, tags) = (event.event().kind(), event.event().tags());
        let is_of_group = matches!(kind, Kind::GROUP_MESSAGE | Kind::ROSTER);
        let id = tags.value(name::GROUP).filter(|_| is_of_group).and_then(NostrGroupId::parse);
        let group = administered(visit, id).await?;
        if !reader.is_anonymous() && !group.has_member(reader.keys()) {
            return Err(Problem::not_found());
        }
    }
    diagnosed(visit, event, &reader).await
}
