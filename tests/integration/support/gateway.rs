//! The gateway's events in the shapes of the specification; tests change and sign them.

use super::event::{Draft, Event, Keys};

/// A 445 to `group`, by a new key (as MLS clients do).
pub fn message(group: &str) -> Draft {
    Keys::random().event(445).tag(["h", group]).content("bWVzc2FnZQ==")
}

/// A 1059 to `recipient`, by a new key.
pub fn wrap(recipient: &Keys) -> Draft {
    Keys::random().event(1059).tag(["p", &recipient.hex()]).tag(["v", "gift.1"]).content("wrapped")
}

/// A 1059 to `recipient` that names `group`.
pub fn welcome(recipient: &Keys, group: &str) -> Draft {
    wrap(recipient).tag(["h", group])
}

/// A 446.
pub fn noise(from: &Keys, to: &Keys) -> Draft {
    from.event(446).tag(["p", &to.hex()]).tag(["v", "noise.1"]).content("bm9pc2U=")
}

/// A 443 without an expiry, whose content is no KeyPackage.
pub fn key_package(owner: &Keys) -> Draft {
    let unique = Keys::random().hex();
    owner.event(443).tag(["p", &owner.hex()]).tag(["kpr", &unique]).content(unique)
}

/// A 447.
pub fn request(by: &Keys, target: &Keys) -> Draft {
    by.event(447).tag(["p", &target.hex()]).content(r#"{"reason":"stock_low"}"#)
}

/// A 450 that applies `op` to `keys`.
pub fn roster(by: &Keys, group: &str, seq: u64, op: &str, keys: &[&Keys]) -> Draft {
    let draft = by.event(450).tag(["h", group]).tag(["seq", &seq.to_string()]).tag(["op", op]);
    draft.tags("p", keys.iter().map(|keys| keys.hex()))
}

/// A 5 that names `targets`.
pub fn deletion(by: &Keys, targets: &[&Event]) -> Draft {
    by.event(5).tags("e", targets.iter().map(|event| event.id()))
}

/// A new `h` in the form of an unlisted group's.
pub fn capability() -> String {
    Keys::random().hex()
}
