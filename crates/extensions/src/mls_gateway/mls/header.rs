//! Header of a group message: the part of an MLSMessage that is not encrypted.
//!
//! Source: RFC 9420, section 6 (framing). The content of a 445 is base64 of the message, or the message itself with one
//! character for each byte.

use base64::Engine as _;

use super::{BASE64, MLS_1_0, PRIVATE_MESSAGE, PUBLIC_MESSAGE, Wire};

/// Most bytes of a message that are decoded to find its group and epoch: a group id of up to 270 bytes fits.
pub const HEADER_BYTES_MAX: usize = 288;
/// Most bytes that stand between the epoch of a PublicMessage and its authenticated data: the sender and a length.
const SENDER_BYTES_MAX: usize = 9;

const SENDER_MEMBER: u8 = 1;
const SENDER_EXTERNAL: u8 = 2;
const SENDER_NEW_MEMBER_PROPOSAL: u8 = 3;
const SENDER_NEW_MEMBER_COMMIT: u8 = 4;

/// The part of an MLSMessage that is not encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The MLS group id, which is not the group's id on Nostr.
    pub mls_group_id: Vec<u8>,
    /// The epoch.
    pub epoch: u64,
    /// The type of the content; `None` where the message breaks off before it, or has an unknown one.
    pub content: Option<ContentType>,
}

/// Type of a message's content (RFC 9420, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// Data of the application.
    Application,
    /// A proposal to change the group.
    Proposal,
    /// A commit, which ends the epoch.
    Commit,
}

impl ContentType {
    const fn read(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Application),
            2 => Some(Self::Proposal),
            3 => Some(Self::Commit),
            _ => None,
        }
    }
}

/// Reads the header of a group message's content: an MLSMessage that holds a PublicMessage or a PrivateMessage. `None`
/// for anything else, as Marmot's contents, which are encrypted once more.
///
/// Decodes at most [`HEADER_BYTES_MAX`] bytes and the few around the type of the content, however long the data between
/// them is. The other bytes are not looked at.
#[must_use]
pub fn header_of_content(content: &str) -> Option<Header> {
    let message = Message::of(content);
    let front = message.read(0, HEADER_BYTES_MAX)?;
    let mut wire = Wire(&front);
    let version = wire.u16()?;
    let format = wire.u16()?;
    if version != MLS_1_0 || !matches!(format, PUBLIC_MESSAGE | PRIVATE_MESSAGE) {
        return None;
    }
    let mls_group_id = wire.opaque()?.to_vec();
    let epoch = wire.u64()?;
    let at = front.len() - wire.0.len();
    let at = if format == PRIVATE_MESSAGE { Some(at) } else { behind_authenticated_data(&message, at) };
    let content = at.and_then(|at| ContentType::read(*message.read(at, 1)?.first()?));
    Some(Header { mls_group_id, epoch, content })
}

/// The place of a PublicMessage's content type, whose sender stands at `at`.
fn behind_authenticated_data(message: &Message<'_>, at: usize) -> Option<usize> {
    let sender = message.read(at, SENDER_BYTES_MAX)?;
    let mut wire = Wire(&sender);
    match wire.u8()? {
        SENDER_MEMBER | SENDER_EXTERNAL => drop(wire.fixed::<4>()?),
        SENDER_NEW_MEMBER_PROPOSAL | SENDER_NEW_MEMBER_COMMIT => {}
        _ => return None,
    }
    let length = wire.length()?;
    at.checked_add(sender.len() - wire.0.len())?.checked_add(length)
}

/// A message as the content of an event spells it.
enum Message<'a> {
    Base64(&'a [u8]),
    /// One character for each byte.
    Characters(&'a str),
}

impl<'a> Message<'a> {
    /// The first byte of an MLSMessage is 0, which no base64 begins with.
    fn of(content: &'a str) -> Self {
        if content.starts_with('\0') { Self::Characters(content) } else { Self::Base64(content.as_bytes()) }
    }

    /// The bytes from `from` on, `count` of them or fewer at the end of the message.
    fn read(&self, from: usize, count: usize) -> Option<Vec<u8>> {
        match self {
            Self::Base64(text) => {
                // Four characters are three bytes, so that a cut falls between two groups.
                let (group, skipped) = (from / 3, from % 3);
                let rest = text.get(group.checked_mul(4)?..)?;
                let length = (skipped + count).div_ceil(3) * 4;
                let bytes = BASE64.decode(&rest[..length.min(rest.len())]).ok()?;
                Some(bytes.get(skipped..)?.iter().take(count).copied().collect())
            }
            Self::Characters(text) => {
                text.chars().skip(from).take(count).map(|character| u8::try_from(character).ok()).collect()
            }
        }
    }
}
