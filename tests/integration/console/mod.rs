//! The console at `/console` and its API (docs/rules.md, "Console").

mod doors;
mod groups;
mod login;
mod now;
mod page;

use serde_json::Value;

use crate::support::{
    Client, Keys, Response, TestRelay,
    gateway::roster,
    rest::{Ask, Rest},
};

/// The path of the API.
const API: &str = "/console/api";

/// Every door that needs a token, with a method, and whether it is for `admin_pubkeys` alone.
const DOORS: [(&str, &str, bool); 9] = [
    ("GET", "/now", true),
    ("GET", "/history", true),
    ("GET", "/groups", false),
    ("GET", "/groups/grp", false),
    ("GET", "/keypackages", true),
    ("GET", "/keypackages/refused", true),
    ("POST", "/diagnose", false),
    ("GET", "/access", true),
    ("GET", "/configuration", true),
];

/// A key that has logged in.
struct Console {
    rest: Rest,
    token: String,
}

impl Console {
    async fn login(relay: &TestRelay, keys: &Keys) -> Self {
        let answer = login(&Rest::of(relay, keys)).ok().await;
        Self::with(relay, answer["token"].as_str().expect("a token"))
    }

    /// A caller with this token.
    fn with(relay: &TestRelay, token: &str) -> Self {
        Self { rest: Rest::anonymous(relay), token: token.to_owned() }
    }

    /// The same caller at the relay's next instance.
    fn elsewhere(&self, relay: &TestRelay) -> Self {
        Self::with(relay, &self.token)
    }

    fn ask(&self, method: &str, path: &str) -> Ask {
        let ask = self.rest.at_target(method, &format!("{API}{path}"));
        ask.header("authorization", &format!("Bearer {}", self.token))
    }

    async fn get(&self, path: &str) -> Value {
        self.ask("GET", path).ok().await
    }

    async fn refused(&self, path: &str, status: u16) -> String {
        self.ask("GET", path).refused(status).await
    }
}

/// A login of this reader.
fn login(rest: &Rest) -> Ask {
    rest.at_target("POST", &format!("{API}/login"))
}

/// A relay with an admin key.
async fn relay_of(admin: &Keys) -> TestRelay {
    let key = admin.public();
    TestRelay::start(move |config| config.mls_gateway.admin_pubkeys = vec![key]).await
}

/// Founds a group of which `alice` is an admin and `bob` a member.
async fn found(client: &mut Client, admin: &Keys, group: &str, alice: &Keys, bob: &Keys) {
    client.publish(&roster(admin, group, 1, "bootstrap", &[alice, bob]).sign()).await.ok();
    client.publish(&roster(admin, group, 2, "promote", &[alice]).sign()).await.ok();
}

/// Expects the headers that every answer of the console has, and none by which another page may read it.
fn sealed(response: &Response, about: &str) {
    let csp = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
               base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    for (name, value) in [
        ("content-security-policy", csp),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(response.header(name), Some(value), "{about}: {name}");
    }
    assert!(!response.head.contains("access-control-"), "{about}: {}", response.head);
}
