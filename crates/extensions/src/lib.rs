//! What the MLS gateway knows, as pure functions and values: who may publish ([`admit`]), what an event changes, who may
//! read ([`gate`]). No I/O, no clock.
//!
//! An event climbs a ladder: `Event -> Verified -> Admitted -> (store) -> Sealed -> Released`. [`admit::admit`] is the
//! only way to [`Admitted`], which is all that a store takes of clients ([`Restored`] comes from an export, by the
//! operator's hand); [`Gate::release`] is the only way from [`Sealed`], which is
//! all that a store gives back, to [`Released`], which is all that a frame is made of.
#![forbid(unsafe_code)]

pub mod admit;
pub mod audience;
pub mod gate;
pub mod mls_gateway;
pub mod policy;
pub mod query;
pub mod restore;
pub mod route;

pub use admit::{Admitted, Effect, Persistence, Publisher};
pub use audience::Audience;
pub use gate::{Asker, Gate, Reader, Released, Sealed, Stamp};
pub use mls_gateway::group::{Group, GroupRecord, GroupStatus, ManagedGroup, NostrGroupId, Role, Source};
pub use policy::Policy;
pub use query::{Query, Scope};
pub use restore::{EventMeta, Restored};
pub use route::RouteHasher;
