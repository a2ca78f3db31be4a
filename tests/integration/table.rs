//! A hand-written table of the events that each reader gets at each door. Agreement of all doors would not prove that
//! they are right.
//!
//! `+` is shown, `-` is served without the event, `A` is refused with `auth-required:`. Each row is one event, asked
//! for by its kind and its author. The doors are a stored REQ, COUNT, NIP-77, a REQ by the event's id, a subscription
//! that was open when the event came, the REST doors that list the kind or name the event, and a claim of the author's
//! KeyPackages.

use nostr_relay::config::Config;
use serde_json::{Value, json};

use crate::support::{
    Client, Event, Keys, TestRelay,
    gateway::{capability, deletion, key_package, message, noise, request, roster, wrap},
    rest::{self, Rest},
};

/// The readers, in the order of the columns.
const READERS: [&str; 7] = ["anonymous", "member", "former member", "recipient", "author", "stranger", "admin key"];

/// `auth.enabled = false`, unlisted groups on.
#[rustfmt::skip]
const OPEN: [(&str, &str); 14] = [
    //                      a m f r w s k
    ("note 1",             "+ + + + + + +"),
    ("KeyPackage 443",     "+ + + + + + +"),
    ("KeyPackage 30443",   "+ + + + + + +"),
    ("445 managed",        "A + - - - - -"),
    ("445 unlisted named", "+ + + + + + +"),
    ("445 unlisted",       "A - - - - - -"),
    ("446",                "A - - + - - -"),
    ("447",                "A - - + - - -"),
    ("450",                "A + - - - - +"),
    ("1059",               "A - - + - - -"),
    ("21059",              "A - - + - - -"),
    ("4",                  "A - - + + - -"),
    ("5 of a note",        "+ + + + + + +"),
    ("5 of a wrap",        "- - - - + - -"),
];

/// `auth.enabled = true`, unlisted groups off.
#[rustfmt::skip]
const CLOSED: [(&str, &str); 12] = [
    //                      a m f r w s k
    ("note 1",             "A + + + + + +"),
    ("KeyPackage 443",     "A + + + + + +"),
    ("KeyPackage 30443",   "A + + + + + +"),
    ("445 managed",        "A + - - - - -"),
    ("446",                "A - - + - - -"),
    ("447",                "A - - + - - -"),
    ("450",                "A + - - - - +"),
    ("1059",               "A - - + - - -"),
    ("21059",              "A - - + - - -"),
    ("4",                  "A - - + + - -"),
    ("5 of a note",        "A + + + + + +"),
    ("5 of a wrap",        "A - - - + - -"),
];

struct Scene {
    relay: TestRelay,
    admin: Keys,
    member: Keys,
    former: Keys,
    recipient: Keys,
    stranger: Keys,
    author: Keys,
    thrown_away: Keys,
    unlisted: String,
    readers: Vec<Client>,
}

impl Scene {
    async fn set(configure: impl FnOnce(&mut Config)) -> Self {
        let [admin, member, former, recipient, author, stranger] = Keys::some();
        let thrown_away = Keys::random();
        let relay = TestRelay::start(|config| {
            config.mls_gateway.admin_pubkeys = vec![admin.public()];
            configure(config);
        })
        .await;
        let mut admins = Client::of(&relay, &[&admin]).await;
        for (seq, op, keys) in [(1, "bootstrap", vec![&member, &former]), (2, "remove", vec![&former])] {
            admins.publish(&roster(&admin, "grp_a", seq, op, &keys).sign()).await.ok();
        }
        let mut readers = vec![Client::connect(&relay).await];
        let columns: [&[&Keys]; 6] =
            [&[&member], &[&former], &[&recipient], &[&author, &thrown_away], &[&stranger], &[&admin]];
        for keys in columns {
            readers.push(Client::of(&relay, keys).await);
        }
        let unlisted = capability();
        Self { relay, admin, member, former, recipient, stranger, author, thrown_away, unlisted, readers }
    }

    /// The event of a row, the filter that asks for it, and an event that must be published before it.
    fn event(&self, row: &str) -> (Event, Value, Option<Event>) {
        let Self { author, recipient, .. } = self;
        let hidden = wrap(author).sign();
        let note = author.event(1).content("to be deleted").sign();
        let by_hand = |kind| self.thrown_away.event(kind);
        let event = match row {
            "note 1" => author.event(1).sign(),
            "KeyPackage 443" => key_package(author).sign(),
            "KeyPackage 30443" => author.event(30443).tag(["d", "x"]).content("x").sign(),
            "445 managed" => by_hand(445).tag(["h", "grp_a"]).sign(),
            "445 unlisted" | "445 unlisted named" => message(&self.unlisted).sign(),
            "446" => noise(author, recipient).sign(),
            "447" => request(&self.admin, recipient).sign(),
            "450" => roster(&self.admin, "grp_a", 3, "promote", &[&self.member]).sign(),
            "1059" => by_hand(1059).tag(["p", &recipient.hex()]).sign(),
            "21059" => by_hand(21059).tag(["p", &recipient.hex()]).sign(),
            "4" => author.event(4).tag(["p", &recipient.hex()]).sign(),
            "5 of a note" => deletion(author, &[&note]).sign(),
            "5 of a wrap" => deletion(author, &[&hidden]).sign(),
            other => panic!("no such row: {other}"),
        };
        let mut filter = json!({"kinds": [event.kind()], "authors": [event.0["pubkey"]]});
        if row == "445 unlisted named" {
            filter["#h"] = json!([self.unlisted]);
        }
        let before = match row {
            "5 of a note" => Some(note),
            "5 of a wrap" => Some(hidden),
            _ => None,
        };
        (event, filter, before)
    }

    async fn check(&mut self, row: &str, cells: &'static str) {
        let (event, filter, before) = self.event(row);
        // This connection may publish every row's event: it has the keys of the member, the author and the admin.
        let mut writer = Client::of(&self.relay, &[&self.member, &self.author, &self.admin]).await;
        if let Some(before) = before {
            writer.publish(&before).await.ok();
        }
        for reader in &mut self.readers {
            let _ = reader.req("live", std::slice::from_ref(&filter)).await;
            reader.settle().await;
        }
        writer.publish(&event).await.ok();
        let lives_on = event.kind() != 21059;
        let named = row.ends_with("named");
        let mut readers = std::mem::take(&mut self.readers);
        for (column, cell) in cells.split(' ').enumerate() {
            let reader = &mut readers[column];
            let at = |door: &str| format!("{row}, {}, {door}", READERS[column]);
            let is = |shown: Result<bool, String>| match shown {
                Ok(true) => "+",
                Ok(false) => "-",
                Err(reason) if reason.starts_with("auth-required: ") => "A",
                Err(reason) => panic!("{row}: {reason}"),
            };
            let stored = if lives_on || cell == "A" { cell } else { "-" };
            let id = event.id().to_owned();
            let live = reader.received("live").await.contains(&event);
            assert_eq!(live, cell == "+", "{}", at("live"));
            let by_kind = reader.ids(filter.clone()).await.map(|ids| ids.contains(&id));
            assert_eq!(is(by_kind), stored, "{}", at("REQ"));
            let counted = reader.count(std::slice::from_ref(&filter)).await.map(|count| count > 0);
            assert_eq!(is(counted), stored, "{}", at("COUNT"));
            let synced = reader.neg_ids(filter.clone()).await.map(|ids| ids.contains(&id));
            assert_eq!(is(synced), stored, "{}", at("NEG-OPEN"));
            // A filter by id names no kind, so without `auth.enabled` it is served. An id opens an unlisted group as
            // its `h` does.
            let by_id = reader.ids(json!({"ids": [id]})).await.map(|ids| ids.contains(&id));
            let expected = match stored {
                _ if event.kind() == 445 && (named || row == "445 unlisted") => "+",
                "A" if !self.relay.app().config.auth.enabled => "-",
                other => other,
            };
            assert_eq!(is(by_id), expected, "{}", at("REQ by id"));
            if cell != "A" {
                reader.close("live").await;
            }
            for (door, path, expected) in self.rest_doors(row, &event, column, (stored, expected)) {
                let rest = match self.key(column, &event) {
                    Some(keys) => Rest::of(&self.relay, keys),
                    None => Rest::anonymous(&self.relay),
                };
                let got = match rest::shown(&rest, &path, "since_cursor").await {
                    Ok(ids) if ids.contains(&id) => "+",
                    Ok(_) => "-",
                    Err(401) => "A",
                    Err(status) => panic!("{}: {status}", at(door)),
                };
                assert_eq!(got, expected, "{}", at(door));
            }
            // An owner's last KeyPackage is given to each claimant, and nothing but KeyPackages is given.
            let claimed = match (column, event.kind()) {
                (0, _) => "A",
                (_, 443 | 30443) => "+",
                _ => "-",
            };
            assert_eq!(self.claim(column, &event).await, claimed, "{}", at("POST keypackages/claim"));
        }
    }

    /// The answer to a claim of the reader of a column: whether it gives the event.
    async fn claim(&self, column: usize, event: &Event) -> &'static str {
        let rest = match self.key(column, event) {
            Some(keys) => Rest::of(&self.relay, keys),
            None => Rest::anonymous(&self.relay),
        };
        let body = json!({"owner": event.0["pubkey"], "count": 10}).to_string();
        let answer = rest.post("/keypackages/claim", body).send().await;
        match answer.status {
            200 if answer.body.contains(event.id()) => "+",
            200 | 404 => "-",
            401 => "A",
            status => panic!("{status}: {}", answer.body),
        }
    }

    /// The key by which the reader of a column asks the REST doors, which take one.
    fn key(&self, column: usize, event: &Event) -> Option<&Keys> {
        let Self { admin, member, former, recipient, author, thrown_away, stranger, .. } = self;
        let writer = if event.0["pubkey"] == thrown_away.hex() { thrown_away } else { author };
        [None, Some(member), Some(former), Some(recipient), Some(writer), Some(stranger), Some(admin)][column]
    }

    /// The REST doors for a row, each with its path and what the reader of a column gets there. `stored` is the cell of
    /// stored events, `by_id` that of a REQ by the event's id.
    fn rest_doors(
        &self,
        row: &str,
        event: &Event,
        column: usize,
        (stored, by_id): (&'static str, &'static str),
    ) -> Vec<(&'static str, String, &'static str)> {
        // Without a proof nothing but KeyPackages is shown.
        let with_key = |cell| if column == 0 { "A" } else { cell };
        let mut doors = vec![("GET events/{id}", format!("/events/{}", event.id()), with_key(by_id))];
        match event.kind() {
            445 => {
                let group = if row == "445 managed" { "grp_a" } else { self.unlisted.as_str() };
                // The request names the group, which opens an unlisted one.
                let cell = with_key(if row == "445 managed" { stored } else { "+" });
                doors.push(("GET messages", format!("/messages?group={group}"), cell));
            }
            446 | 447 | 1059 | 21059 => doors.push(("GET inbox", "/inbox".to_owned(), with_key(stored))),
            450 => doors.push(("GET groups/{id}/roster", "/groups/grp_a/roster".to_owned(), with_key(stored))),
            443 | 30443 => {
                let owner = event.0["pubkey"].as_str().expect("an author");
                doors.push(("GET keypackages", format!("/keypackages?owner={owner}&include=event"), stored));
            }
            _ => {}
        }
        doors
    }
}

#[tokio::test]
async fn the_open_relay_shows_what_the_table_says() {
    for (row, cells) in OPEN {
        Scene::set(|_| {}).await.check(row, cells).await;
    }
}

#[tokio::test]
async fn the_closed_relay_shows_what_the_table_says() {
    for (row, cells) in CLOSED {
        let scene = Scene::set(|config| {
            config.auth.enabled = true;
            config.mls_gateway.unlisted_groups = false;
        });
        scene.await.check(row, cells).await;
    }
}
