//! Cursors: the place at which a list goes on, as a text that tells its holder nothing.
//!
//! Source: docs/rules.md, "REST". A place is a cursor of the log, a time or a key. The number of events between two
//! places of the log would tell of events that the reader may not see, so a cursor is encrypted (ChaCha20-Poly1305)
//! under a key of the store. The associated data bind it to the door, the reader and the question. The nonce is drawn
//! from the place by HMAC, so that one place has one cursor.

use axum::http::StatusCode;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};

use super::Problem;

/// First byte of a cursor: the form of the rest.
const VERSION: u8 = 1;
/// Bytes in front of the encrypted place: the version and the mark of the store.
const HEAD_BYTES: usize = 1 + MARK_BYTES;
/// Bytes by which a store is told from another.
const MARK_BYTES: usize = 4;
/// Most characters of a cursor.
const CURSOR_CHARS_MAX: usize = 512;

/// The keys of the cursors of one store.
pub(crate) struct Cursors {
    sealing: LessSafeKey,
    nonces: hmac::Key,
    mark: [u8; MARK_BYTES],
}

/// The question that a cursor belongs to: the door, the reader and the parameters that narrow the list.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a>(pub(crate) &'a [&'a [u8]]);

impl Question<'_> {
    /// The parts, each behind its length.
    fn bytes(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in self.0 {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }
}

impl Cursors {
    /// The cursors of the store with this secret.
    ///
    /// # Panics
    /// Never: the algorithm takes a key of 32 bytes.
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derive = |purpose: &str| hmac::sign(&root, purpose.as_bytes());
        #[allow(clippy::expect_used, reason = "an HMAC-SHA256 has the 32 bytes of a key")]
        let sealing = UnboundKey::new(&CHACHA20_POLY1305, derive("rest cursors, key").as_ref()).expect("32 bytes");
        let mut mark = [0; MARK_BYTES];
        mark.copy_from_slice(&derive("rest cursors, mark").as_ref()[..MARK_BYTES]);
        Self {
            sealing: LessSafeKey::new(sealing),
            nonces: hmac::Key::new(hmac::HMAC_SHA256, derive("rest cursors, nonces").as_ref()),
            mark,
        }
    }

    /// The cursor of a place in the answer to a question.
    pub(crate) fn seal(&self, question: Question<'_>, place: &[u8]) -> String {
        let question = question.bytes();
        let tag = hmac::sign(&self.nonces, &[&question[..], place].concat());
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&tag.as_ref()[..NONCE_LEN]);
        let mut sealed = place.to_vec();
        let aad = Aad::from(&question[..]);
        // A place is a few bytes, and the algorithm refuses nothing below 256 GiB.
        if self.sealing.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).is_err() {
            return String::new();
        }
        BASE64_URL_SAFE_NO_PAD.encode([&[VERSION][..], &self.mark, &nonce, &sealed].concat())
    }

    /// The place of a cursor.
    ///
    /// # Errors
    /// 410 for a cursor of another store, 400 for one that is made up or belongs to another question.
    pub(crate) fn open(&self, question: Question<'_>, cursor: &str) -> Result<Vec<u8>, Problem> {
        let unknown = || {
            Problem::bad_parameter("this is no cursor of this request; send the next_cursor of an earlier answer to it")
        };
        if cursor.len() > CURSOR_CHARS_MAX {
            return Err(unknown());
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| unknown())?;
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or_else(unknown)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or_else(unknown)?;
        if head[0] != VERSION {
            return Err(unknown());
        }
        if head[1..] != self.mark {
            return Err(gone("the cursor is of another store, which this relay had before"));
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| unknown())?;
        let mut place = sealed.to_vec();
        let opened = self.sealing.open_in_place(nonce, Aad::from(&question.bytes()[..]), &mut place);
        opened.map(|place| place.to_vec()).map_err(|_| unknown())
    }
}

/// The answer to a cursor of a log that is no longer there.
pub(super) fn gone(why: &str) -> Problem {
    let advice = "begin again without a cursor, and pass over the events that you have by their ids";
    Problem::new(StatusCode::GONE, format!("invalid: {why}; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Question<'static> = Question(&[b"messages", b"alice", b"grp"]);

    #[test]
    fn a_cursor_comes_back_to_its_own_question_alone() {
        let cursors = Cursors::new(&[7; 32]);
        let cursor = cursors.seal(ASKED, b"place");
        assert_eq!(cursors.seal(ASKED, b"place"), cursor);
        assert_eq!(Cursors::new(&[7; 32]).open(ASKED, &cursor).expect("a place"), b"place");
        for other in [
            &[&b"messages"[..], b"bob", b"grp"][..],
            &[b"messages", b"alice", b"grq"],
            &[b"inbox", b"alice", b"grp"],
            &[b"messages", b"alicegrp", b""],
            &[b"messages", b"alice"],
        ] {
            assert_eq!(cursors.open(Question(other), &cursor).expect_err("another").status(), 400);
        }
    }

    #[test]
    fn a_changed_cursor_is_none() {
        let cursors = Cursors::new(&[7; 32]);
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursors.seal(ASKED, b"place")).expect("base64");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let status = cursors.open(ASKED, &BASE64_URL_SAFE_NO_PAD.encode(changed)).expect_err("changed").status();
            assert_eq!(status, if (1..HEAD_BYTES).contains(&at) { 410 } else { 400 }, "{at}");
            let cut = &bytes[..at];
            assert_eq!(cursors.open(ASKED, &BASE64_URL_SAFE_NO_PAD.encode(cut)).expect_err("cut").status(), 400);
        }
        for text in ["", "!", "AAAA", &"A".repeat(10_000)] {
            assert_eq!(cursors.open(ASKED, text).expect_err("made up").status(), 400, "{text}");
        }
        let elsewhere = Cursors::new(&[8; 32]).seal(ASKED, b"place");
        assert_eq!(cursors.open(ASKED, &elsewhere).expect_err("another store").status(), 410);
    }

    #[test]
    fn a_cursor_does_not_show_its_place() {
        let cursor = Cursors::new(&[7; 32]).seal(ASKED, b"0123456789abcdef");
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).expect("base64");
        assert!(!bytes.windows(4).any(|part| b"0123456789abcdef".windows(4).any(|place| place == part)));
    }
}
