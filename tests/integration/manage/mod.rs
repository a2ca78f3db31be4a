//! Management over NIP-86 (docs/rules.md, "Management").

mod at_program;
mod bans;
mod orders;
mod policy;
mod program;
mod reload;

use crate::support::{Client, Keys, TestRelay, rest::Rest};

/// A relay with an admin key, and the admin as a client of NIP-86.
async fn managed() -> (TestRelay, Rest, Keys) {
    let admin = Keys::random();
    let relay = TestRelay::start(|config| config.mls_gateway.admin_pubkeys = vec![admin.public()]).await;
    let orders = Rest::of(&relay, &admin);
    (relay, orders, admin)
}

/// Waits for the end of a connection, which comes within a second.
async fn ends(client: &mut Client) {
    let ended = async { while client.try_recv().await.is_some() {} };
    tokio::time::timeout(std::time::Duration::from_secs(1), ended).await.expect("the connection ends");
}

/// Time within which an order holds on every instance.
async fn in_force() {
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
}
