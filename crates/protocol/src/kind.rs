//! Event kinds: the kinds with rules of their own, and the ranges of NIP-01.

use std::fmt;

/// An event's kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind(pub u16);

/// Retention of a kind's events (NIP-01, "Kinds").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Every event is kept.
    Regular,
    /// The newest event of a (pubkey, kind) is kept.
    Replaceable,
    /// No event is kept.
    Ephemeral,
    /// The newest event of a (pubkey, kind, `d`) is kept.
    Addressable,
}

#[allow(missing_docs, reason = "the names are the field's own; the file with a kind's rules explains the kind")]
impl Kind {
    pub const METADATA: Self = Self(0);
    pub const ENCRYPTED_DM: Self = Self(4);
    pub const DELETION: Self = Self(5);
    pub const REPOST: Self = Self(6);
    pub const SEAL: Self = Self(13);
    pub const GENERIC_REPOST: Self = Self(16);
    pub const VANISH: Self = Self(62);
    pub const KEY_PACKAGE: Self = Self(443);
    pub const WELCOME: Self = Self(444);
    pub const GROUP_MESSAGE: Self = Self(445);
    pub const NOISE_DM: Self = Self(446);
    pub const KEY_PACKAGE_REQUEST: Self = Self(447);
    pub const INNER_448: Self = Self(448);
    pub const INNER_449: Self = Self(449);
    pub const ROSTER: Self = Self(450);
    pub const INNER_451: Self = Self(451);
    pub const GIFT_WRAP: Self = Self(1059);
    pub const EPHEMERAL_GIFT_WRAP: Self = Self(21059);
    pub const AUTH: Self = Self(22242);
    pub const HTTP_AUTH: Self = Self(27235);
    pub const ADDRESSABLE_KEY_PACKAGE: Self = Self(30443);
}

impl Kind {
    /// Retention by the range that the kind lies in.
    #[must_use]
    pub const fn lifetime(self) -> Lifetime {
        match self.0 {
            0 | 3 | 10_000..=19_999 => Lifetime::Replaceable,
            20_000..=29_999 => Lifetime::Ephemeral,
            30_000..=39_999 => Lifetime::Addressable,
            _ => Lifetime::Regular,
        }
    }

    /// Whether the kind is a KeyPackage of either form.
    #[must_use]
    pub const fn is_key_package(self) -> bool {
        matches!(self, Self::KEY_PACKAGE | Self::ADDRESSABLE_KEY_PACKAGE)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind({})", self.0)
    }
}
