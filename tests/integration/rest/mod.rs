//! The REST doors (docs/rules.md, "REST").

mod authentication;
mod claims;
mod diagnose;
mod events;
mod groups;
mod key_packages;
mod messages;
mod outbound;
mod stock;

use crate::support::{Keys, TestRelay};

/// A relay with an admin key.
async fn relay_of(admin: &Keys) -> TestRelay {
    TestRelay::start(|config| config.mls_gateway.admin_pubkeys = vec![admin.public()]).await
}
