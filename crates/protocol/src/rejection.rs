//! Refusals: one of the words of NIP-01 and NIP-42, and one sentence for the client.

use std::{borrow::Cow, fmt};

/// The machine-readable word in front of a reason (NIP-01, NIP-42).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// The relay has the event already, with `OK true`, or a newer version of it, with `OK false`.
    Duplicate,
    /// The event or the request breaks a rule of its form.
    Invalid,
    /// A filter asks for something that this relay does not have.
    Unsupported,
    /// The event carries too little proof of work (NIP-13).
    Pow,
    /// Nobody may do this here.
    Blocked,
    /// This reader may not do this.
    Restricted,
    /// The reader must authenticate first.
    AuthRequired,
    /// The client asks for too much in too short a time.
    RateLimited,
    /// The relay failed, not the client.
    Error,
}

impl Word {
    /// The spelling on the wire, without the colon.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::Pow => "pow",
            Self::Blocked => "blocked",
            Self::Restricted => "restricted",
            Self::AuthRequired => "auth-required",
            Self::RateLimited => "rate-limited",
            Self::Error => "error",
        }
    }
}

/// A numbered rule of docs/rules.md, by its heading; 0 stands for the table under the heading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule(pub &'static str, pub u8);

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            0 => f.write_str(self.0),
            number => write!(f, "{} {number}", self.0),
        }
    }
}

/// A refusal: the reason in an `OK false` or a `CLOSED`.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// The word.
    pub word: Word,
    /// The sentence, which names the fault and the remedy.
    pub text: Cow<'static, str>,
    /// The rule that decided, which no client of the socket is told.
    pub rule: Option<Rule>,
}

impl PartialEq for Rejection {
    /// Compares the refusals as their clients read them.
    fn eq(&self, other: &Self) -> bool {
        (self.word, &self.text) == (other.word, &other.text)
    }
}

impl Eq for Rejection {}

impl Rejection {
    /// `duplicate:`, for an event whose newer version the relay has.
    pub fn duplicate(text: impl Into<Cow<'static, str>>) -> Self {
        Self { word: Word::Duplicate, text: text.into(), rule: None }
    }

    /// `invalid:`
    pub fn invalid(text: impl Into<Cow<'static, str>>) -> Self {
        Self { word: Word::Invalid, text: text.into(), rule: None }
    }

    /// `unsupported:`
    pub fn unsupported(text: impl Into<Cow<'static, str>>) -> Self {
        Self { word: Word::Unsupported, text: text.into(), rule: None }
    }

    /// `pow:`
    pub fn pow(text: impl Into<Cow<'static, str>>) -> Self {
        Self { word: Word::Pow, text: text.into(), rule: None }
    }

    /// `blocked:`
    pub fn blocked(text: impl Into<Cow<'static, str>>) -> Self {
        Self { word: Word::Blocked, text: text.into(), rule: None }
    }

    /// `restricted:`
    pub fn restricted(text: impl Into<Cow<'static, str>>) -> Self {
        Self { word: Word::Restricted, text: text.into(), rule: None }
    }

    /// `auth-required:`
    pub fn auth_required(text: impl Into<Cow<'static, str>>) -> Self {
        Self { word: Word::AuthRequired, text: text.into(), rule: None }
    }

    /// `rate-limited:`
    pub fn rate_limited(text: impl Into<Cow<'static, str>>) -> Self {
        Self { word: Word::RateLimited, text: text.into(), rule: None }
    }

    /// `error:`
    pub fn error(text: impl Into<Cow<'static, str>>) -> Self {
        Self { word: Word::Error, text: text.into(), rule: None }
    }
}

impl Rejection {
    /// Names the rule that decided, unless the refusal names one already.
    #[must_use]
    pub fn under(mut self, rule: Rule) -> Self {
        self.rule.get_or_insert(rule);
        self
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.word.as_str(), self.text)
    }
}
