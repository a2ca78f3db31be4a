//! An answer of the access service, read with nothing taken for granted.

use std::collections::HashMap;

use nostr_extensions::{Role, mls_gateway::group::GROUP_MEMBERS_MAX};
use nostr_protocol::PublicKey;
use serde::Deserialize;

/// The body of an answer. Members that the relay does not know are passed over.
#[derive(Deserialize)]
struct Body {
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    pubkey: String,
    role: Role,
}

/// The members in the body of a 200.
///
/// # Errors
/// The fault, in words for the operator; no key is in them.
pub(super) fn members(body: &[u8]) -> Result<HashMap<PublicKey, Role>, String> {
    let body: Body = serde_json::from_slice(body).map_err(|error| {
        // The error's own text may repeat a value of the body.
        format!("the body is not the JSON that is expected (line {}, column {})", error.line(), error.column())
    })?;
    if body.members.len() > GROUP_MEMBERS_MAX {
        return Err(format!("the group has more than {GROUP_MEMBERS_MAX} members"));
    }
    let mut members = HashMap::with_capacity(body.members.len());
    for Member { pubkey, role } in body.members {
        let key = PublicKey::from_hex(&pubkey).ok_or("a pubkey is not 64 lower-case hex digits")?;
        if members.insert(key, role).is_some() {
            return Err("a pubkey stands there twice".to_owned());
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use nostr_protocol::testing::key;

    use super::*;

    #[test]
    fn members_are_read_with_their_roles() {
        let (alice, bob) = (key("alice"), key("bob"));
        let body = format!(
            r#"{{"name":"Team","members":[{{"pubkey":"{alice}","role":"admin"}},
                {{"pubkey":"{bob}","role":"member","since":7}}]}}"#
        );
        let expected = HashMap::from([(alice, Role::Admin), (bob, Role::Member)]);
        assert_eq!(members(body.as_bytes()), Ok(expected));
        assert_eq!(members(br#"{"members":[]}"#), Ok(HashMap::new()));
    }

    #[test]
    fn wrong_types_are_a_failure() {
        let key = key("alice").to_hex();
        for body in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"members":null}"#,
            r#"{"members":{}}"#,
            r#"{"members":["a"]}"#,
            r#"{"members":[{"pubkey":7,"role":"member"}]}"#,
            r#"{"members":[]} x"#,
            "{\"members\":[",
        ] {
            assert!(members(body.as_bytes()).is_err(), "{body}");
        }
        let member = |pubkey: &str, role: &str| format!(r#"{{"pubkey":"{pubkey}","role":{role}}}"#);
        let all = |list: &[String]| members(format!(r#"{{"members":[{}]}}"#, list.join(",")).as_bytes());
        assert!(all(&[member(&key, "\"member\"")]).is_ok());
        for role in ["\"owner\"", "\"Admin\"", "1", "null"] {
            assert!(all(&[member(&key, role)]).is_err(), "{role}");
        }
        for pubkey in ["", &key[1..], &key.to_uppercase()] {
            assert!(all(&[member(pubkey, "\"member\"")]).is_err(), "{pubkey}");
        }
        assert!(
            all(&[member(&key, "\"member\""), member(&key, "\"admin\"")]).is_err(),
            "a key that stands there twice"
        );
        assert!(members(format!(r#"{{"members":[{{"pubkey":"{key}"}}]}}"#).as_bytes()).is_err(), "no role");
    }

    #[test]
    fn no_fault_repeats_a_key() {
        let key = key("alice").to_hex();
        for body in
            [format!(r#"{{"members":"{key}"}}"#), format!(r#"{{"members":[{{"pubkey":"{key}","role":"{key}"}}]}}"#)]
        {
            assert!(!members(body.as_bytes()).expect_err("wrong").contains(&key));
        }
    }
}
