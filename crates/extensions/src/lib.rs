//! The rules of the relay, as pure functions and values: admission of events ([`admit`]), their effects ([`effect`]),
//! and their release to readers ([`gate`]). No I/O, no clock. All that differs from kind to kind stands in one table
//! ([`kinds`]).
//!
//! An event takes these types in turn: `Event -> Verified -> Admitted -> (store) -> Sealed -> Released`.
//! [`admit::admit`] is the only way to [`Admitted`], and a store takes nothing else from clients. ([`Restored`] comes
//! from an export, by the operator's hand.) [`Gate::release`] is the only way from [`Sealed`], which is all that a
//! store gives the server back, to [`Released`], which is all that a frame is made of.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods)]

pub mod admit;
pub mod audience;
mod context;
pub mod effect;
pub mod gate;
pub mod kinds;
pub mod mls_gateway;
pub mod moderation;
mod opening;
pub mod policy;
pub mod query;
mod reader;
mod refusal;
pub mod registry;
pub mod restore;
pub mod route;
pub mod strangers;
mod tags;

pub use admit::Admitted;
pub use audience::Audience;
pub use context::Publisher;
pub use effect::{Effect, Persistence};
pub use gate::{Asker, Gate, Hidden, Prepared, Released, Sealed, Stamp};
pub use mls_gateway::group::{Group, GroupRecord, GroupStatus, ManagedGroup, NostrGroupId, Role, Source};
pub use moderation::Moderation;
pub use opening::Opening;
pub use policy::{CurrentPolicy, KindRange, Policy, Retention};
pub use query::{Query, Scope};
pub use reader::{READER_KEYS_MAX, Reader};
pub use restore::{EventMeta, ForeignRules, Restored};
pub use route::RouteHasher;
pub use strangers::{AskedProof, StrangerRules};
