//! Failures of calls.

use tonic::{Code, Status};

use crate::StoreError;

#[derive(Clone, Debug)]
pub(crate) enum Fail {
    /// A passing failure, or one that no other try from here would mend. The text is for the log.
    Unavailable(String),
    /// No answer in time: the service is away, or was given too much at once.
    Late(String),
    /// The database is missing, refuses access, or lacks an index. The operator has to change something first.
    Refused(String),
    /// A document changed since it was read. The caller has to read and decide anew.
    Conflict,
    /// The writes are more than one commit takes.
    Large,
    /// The service refuses the data.
    Invalid(String),
    /// The database is not the one that was opened.
    OtherHistory,
    /// A document is not in this store's form.
    Damaged(&'static str),
    /// The reads of clients are used up for this number of seconds.
    UsedUp(u64),
}

impl Fail {
    /// The failure of a read, or of a commit without preconditions.
    pub(crate) fn of(what: &str, status: &Status) -> Self {
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Self::Invalid(words(what, status)),
            Code::Aborted => Self::Conflict,
            // The client says the latter of a call whose deadline has passed.
            Code::DeadlineExceeded | Code::Cancelled => Self::Late(words(what, status)),
            Code::PermissionDenied | Code::Unauthenticated | Code::NotFound | Code::FailedPrecondition => {
                Self::Refused(words(what, status))
            }
            _ => Self::Unavailable(words(what, status)),
        }
    }

    /// The failure of a commit. The service has a different code for each sort of failed precondition.
    pub(crate) fn of_commit(status: &Status) -> Self {
        match status.code() {
            Code::FailedPrecondition | Code::AlreadyExists | Code::NotFound => Self::Conflict,
            _ => Self::of("commit", status),
        }
    }

    pub(crate) fn timed_out(what: &str) -> Self {
        Self::Late(format!("Firestore does not answer ({what})"))
    }
}

fn words(what: &str, status: &Status) -> String {
    format!("Firestore, {what}: {:?}: {}", status.code(), status.message())
}

impl From<Fail> for StoreError {
    fn from(fail: Fail) -> Self {
        match fail {
            Fail::Unavailable(why) | Fail::Late(why) | Fail::Refused(why) => Self::Unavailable(why),
            Fail::Conflict => Self::Unavailable("Firestore: others change the same things all the time".to_owned()),
            Fail::Large => Self::Event("it is more than one commit of Firestore takes".to_owned()),
            Fail::Invalid(why) => Self::Event(why),
            Fail::OtherHistory => {
                Self::Replaced("Firestore: older data were written over these; restart this process".to_owned())
            }
            Fail::UsedUp(secs) => Self::UsedUp(secs),
            Fail::Damaged(what) => Self::Unavailable(format!("Firestore holds what this store did not write: {what}")),
        }
    }
}
