//! An answer of the program: a line of JSON with an event's id and an action.

use nostr_protocol::Rejection;
use serde::Deserialize;

/// Most bytes of a reason for a client.
const REASON_BYTES_MAX: usize = 256;

/// See the module.
#[derive(Deserialize)]
pub(super) struct Answer {
    pub(super) id: String,
    action: String,
    #[serde(default)]
    msg: Option<String>,
}

impl Answer {
    /// The id that a line names and the decision about it; `None` for a line that is no answer.
    pub(super) fn read(line: &str) -> Option<(String, Result<(), Rejection>)> {
        let answer: Self = serde_json::from_str(line).ok()?;
        let outcome = answer.outcome()?;
        Some((answer.id, outcome))
    }

    fn outcome(&self) -> Option<Result<(), Rejection>> {
        let refused = || Rejection::blocked("this relay's write policy refuses this event");
        match self.action.as_str() {
            "accept" => Some(Ok(())),
            "reject" => Some(Err(self.msg.as_deref().and_then(rejection).unwrap_or_else(refused))),
            // A client is never told `OK true` for an event that is not stored.
            "shadowReject" => Some(Err(refused())),
            _ => None,
        }
    }
}

/// The reason that a program gives, under its own word if it is one of NIP-01; `None` if it is empty.
fn rejection(text: &str) -> Option<Rejection> {
    let mut cut = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if cut.len() + character.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        cut.push(character);
    }
    let (word, rest) = cut.split_once(':').map_or(("", cut.as_str()), |(word, rest)| (word, rest.trim()));
    let rest = rest.to_owned();
    Some(match word {
        "invalid" => Rejection::invalid(rest),
        "restricted" => Rejection::restricted(rest),
        "rate-limited" => Rejection::rate_limited(rest),
        "error" => Rejection::error(rest),
        "blocked" => Rejection::blocked(rest),
        _ if cut.trim().is_empty() => return None,
        _ => Rejection::blocked(cut),
    })
}

#[cfg(test)]
mod tests {
    use nostr_protocol::Word;

    use super::*;

    fn outcome(action: &str, msg: Option<&str>) -> Option<Result<(), Rejection>> {
        Answer { id: String::new(), action: action.to_owned(), msg: msg.map(str::to_owned) }.outcome()
    }

    #[test]
    fn answers_are_read_as_strfry_reads_them() {
        assert_eq!(outcome("accept", None), Some(Ok(())));
        let refused = |action, msg| outcome(action, msg).expect("an answer").expect_err("a refusal");
        let rejection = refused("reject", Some("blocked: not on white-list"));
        assert_eq!(rejection.to_string(), "blocked: not on white-list");
        assert_eq!(refused("reject", Some("rate-limited: slow down")).word, Word::RateLimited);
        assert_eq!(refused("reject", Some("no thanks")).to_string(), "blocked: no thanks");
        assert_eq!(refused("reject", Some("odd: word")).to_string(), "blocked: odd: word");
        for msg in [None, Some(""), Some(" \n")] {
            assert_eq!(refused("reject", msg), refused("shadowReject", Some("accepted: not really")));
        }
        assert_eq!(outcome("maybe", None), None);
        assert!(refused("reject", Some(&"é".repeat(500))).text.len() <= REASON_BYTES_MAX);
    }
}
