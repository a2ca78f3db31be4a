//! Invitations: a key's signature that another key may do one thing until a time.
//!
//! Source: docs/rules.md, "Strangers" 5. The tag is `["invitation", use, by, until, signature]`. `use` is `group` or
//! `inbox`, `by` the public key that invites in hex, `until` Unix seconds in decimal, and the signature one of BIP-340
//! by `by`, in hex, over the SHA-256 of the text `nostr-invitation:<use>:<subject>:<until>`. The subject is the invited
//! key in hex. It stands in the text alone, since the event that carries the invitation says which key it must be for.

use secp256k1::{XOnlyPublicKey, schnorr};
use sha2::{Digest as _, Sha256};

use crate::{Event, PublicKey, UnixSecs, hex, sign::SecretKey, tag::name};

/// The act that an invitation allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvitedTo {
    /// The subject founds groups.
    FoundGroups,
    /// Anyone writes to the inbox of the subject.
    WriteToInbox,
}

impl InvitedTo {
    /// All acts.
    pub const ALL: [Self; 2] = [Self::FoundGroups, Self::WriteToInbox];

    /// The word in the tag, in the signed text and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FoundGroups => "group",
            Self::WriteToInbox => "inbox",
        }
    }
}

/// An invitation as an event carries it. Its signature is not checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// The act.
    pub to: InvitedTo,
    /// The key that invites.
    pub by: PublicKey,
    /// Time from which on it holds no more.
    pub until: UnixSecs,
    sig: [u8; 64],
}

impl Invitation {
    /// The first invitation to this act in an event, if it has the form of one.
    #[must_use]
    pub fn of(event: &Event, to: InvitedTo) -> Option<Self> {
        let tag = event.tags().named(name::INVITATION).find(|tag| tag.value() == Some(to.as_str()))?;
        let (by, until, sig) = (tag.get(2)?, tag.get(3)?, tag.get(4)?);
        // Another spelling of the number would be another text.
        let until = until.parse().ok().filter(|secs: &UnixSecs| secs.to_string() == until)?;
        Some(Self { to, by: PublicKey::from_hex(by)?, until, sig: hex::parse_lower(sig.as_bytes())? })
    }

    /// Signs an invitation of `subject`.
    #[must_use]
    pub fn new(inviter: &SecretKey, to: InvitedTo, subject: &PublicKey, until: UnixSecs) -> Self {
        Self { to, by: inviter.public(), until, sig: inviter.sign_digest(&digest(to, subject, until)) }
    }

    /// Whether it holds for this key at `now`. The check of the signature takes about 50 µs of CPU.
    #[must_use]
    pub fn holds_for(&self, subject: &PublicKey, now: UnixSecs) -> bool {
        let Ok(by) = XOnlyPublicKey::from_byte_array(*self.by.as_bytes()) else { return false };
        let sig = schnorr::Signature::from_byte_array(self.sig);
        now < self.until && schnorr::verify(&sig, &digest(self.to, subject, self.until), &by).is_ok()
    }

    /// The tag of an event that carries it.
    #[must_use]
    pub fn tag(&self) -> [String; 5] {
        let texts = [name::INVITATION, self.to.as_str()].map(str::to_owned);
        let [name, to] = texts;
        [name, to, self.by.to_hex(), self.until.to_string(), hex::to_hex(&self.sig)]
    }
}

fn digest(to: InvitedTo, subject: &PublicKey, until: UnixSecs) -> [u8; 32] {
    Sha256::digest(format!("nostr-invitation:{}:{subject}:{until}", to.as_str())).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{EventBuilder, key, keypair};

    const UNTIL: UnixSecs = 1_800_000_000;

    fn invitation(to: InvitedTo) -> Invitation {
        Invitation::new(&SecretKey::from(keypair("operator")), to, &key("alice"), UNTIL)
    }

    fn carrying(tag: &[&str]) -> Event {
        EventBuilder::new(1059).tag(&["invitation", "other"]).tag(tag).event(&keypair("anyone"))
    }

    #[test]
    fn an_invitation_holds_for_its_key_its_act_and_its_time() {
        for to in InvitedTo::ALL {
            let made = invitation(to);
            let tag = made.tag();
            let event = carrying(&tag.each_ref().map(String::as_str));
            let read = Invitation::of(&event, to).expect("it is read");
            assert_eq!((&read, read.by), (&made, key("operator")));
            assert!(read.holds_for(&key("alice"), UNTIL - 1));
            assert!(!read.holds_for(&key("alice"), UNTIL), "its time is over");
            assert!(!read.holds_for(&key("bob"), 0), "it is another key's");
            let other = InvitedTo::ALL.into_iter().find(|other| *other != to).expect("there are two");
            assert_eq!(Invitation::of(&event, other), None);
            // The signature covers the act, the time and the key that invites.
            assert!(!Invitation { to: other, ..made.clone() }.holds_for(&key("alice"), 0));
            assert!(!Invitation { until: UNTIL + 1, ..made.clone() }.holds_for(&key("alice"), 0));
            assert!(!Invitation { by: key("bob"), ..made }.holds_for(&key("alice"), 0));
        }
    }

    #[test]
    fn another_form_is_no_invitation() {
        let tag = invitation(InvitedTo::WriteToInbox).tag();
        let texts = tag.each_ref().map(String::as_str);
        let (zeros, upper) = (format!("0{UNTIL}"), tag[4].to_uppercase());
        for (at, text) in [(2, "xyz"), (3, "x"), (3, zeros.as_str()), (3, "-1"), (4, "00"), (4, upper.as_str())] {
            let mut changed = texts;
            changed[at] = text;
            assert_eq!(Invitation::of(&carrying(&changed), InvitedTo::WriteToInbox), None, "{at} {text}");
        }
        assert_eq!(Invitation::of(&carrying(&texts[..4]), InvitedTo::WriteToInbox), None);
    }

    /// The text that docs/rules.md gives, written out by hand.
    #[test]
    fn the_signed_text_is_the_documented_one() {
        let text = format!("nostr-invitation:inbox:{}:1800000000", key("alice").to_hex());
        assert_eq!(digest(InvitedTo::WriteToInbox, &key("alice"), UNTIL), *Sha256::digest(text));
    }
}
