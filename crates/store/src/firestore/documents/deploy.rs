//! The files that set up a database.

use std::fmt::Write as _;

use crate::firestore::documents::{
    index::{COMPOSITE, IndexMode, LIFETIMES, SINGLE},
    names::Collection,
};

fn mode_json(mode: IndexMode) -> &'static str {
    match mode {
        IndexMode::Ascending => r#""order": "ASCENDING""#,
        IndexMode::Descending => r#""order": "DESCENDING""#,
        IndexMode::Contains => r#""arrayConfig": "CONTAINS""#,
    }
}

/// `firestore.indexes.json` for a database whose collections begin with `prefix`, in the form of `firebase deploy
/// --only firestore:indexes`. It declares the indexes, exempts every other field from automatic ones, and has the
/// service remove expired events.
#[must_use]
pub fn indexes_json(prefix: &str) -> String {
    let group = |collection: Collection| format!(r#""collectionGroup": "{prefix}_{}""#, collection.name());
    let mut composite = Vec::new();
    for (collection, fields) in COMPOSITE {
        let fields =
            fields.iter().map(|(path, mode)| format!(r#"        {{ "fieldPath": "{path}", {} }}"#, mode_json(*mode)));
        let fields: Vec<String> = fields.collect();
        composite.push(format!(
            "    {{\n      {},\n      \"queryScope\": \"COLLECTION\",\n      \"fields\": [\n{}\n      ]\n    }}",
            group(collection),
            fields.join(",\n")
        ));
    }
    let mut overrides = Vec::new();
    for collection in Collection::ALL {
        for path in collection.fields() {
            let mut line = format!(r#"    {{ {}, "fieldPath": "{path}","#, group(collection));
            if LIFETIMES.contains(&(collection, path)) {
                line.push_str(r#" "ttl": true,"#);
            }
            let modes = SINGLE.iter().find(|(of, field, _)| *of == collection && field == path);
            let modes = modes.map(|(_, _, modes)| *modes).unwrap_or_default();
            let modes = modes.iter().map(|mode| format!(r#"{{ {}, "queryScope": "COLLECTION" }}"#, mode_json(*mode)));
            let modes: Vec<String> = modes.collect();
            // Writing to a string does not fail.
            let _ = write!(line, r#" "indexes": [{}] }}"#, modes.join(", "));
            overrides.push(line);
        }
    }
    format!(
        "{{\n  \"indexes\": [\n{}\n  ],\n  \"fieldOverrides\": [\n{}\n  ]\n}}\n",
        composite.join(",\n"),
        overrides.join(",\n")
    )
}

/// `firestore.rules`: they forbid every access by way of Firebase. The relay uses IAM, which these rules do not bind.
#[must_use]
pub fn rules() -> String {
    "rules_version = '2';\n\
     // Everything goes by way of the relay, which decides who may read and write; \
     it is let in by IAM, not by these rules.\n\
     service cloud.firestore {\n  match /databases/{database}/documents {\n    match /{document=**} {\n      \
     allow read, write: if false;\n    }\n  }\n}\n"
        .to_owned()
}
