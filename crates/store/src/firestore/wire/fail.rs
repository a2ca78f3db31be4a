//! Why a call of the service came to nothing.

use tonic::{Code, Status};

use crate::StoreError;

#[derive(Clone, Debug)]
pub(crate) enum Fail {
    /// Passing, or nothing that another try from here would mend: the words are for the log.
    Unavailable(String),
    /// The database is not there, lets nobody in, or has no index for a query: somebody has to change something first.
    Refused(String),
    /// What was read has changed meanwhile: what follows from it is to be found anew.
    Conflict,
    /// It is more than one commit takes.
    Large,
    /// The service does not take what it was given.
    Invalid(String),
    /// A document is not as this store writes it.
    Damaged(&'static str),
}

impl Fail {
    /// Of a read, or of a commit whose preconditions nobody waits for.
    pub(crate) fn of(what: &str, status: &Status) -> Self {
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Self::Invalid(words(what, status)),
            Code::Aborted => Self::Conflict,
            Code::PermissionDenied | Code::Unauthenticated | Code::NotFound | Code::FailedPrecondition => {
                Self::Refused(words(what, status))
            }
            _ => Self::Unavailable(words(what, status)),
        }
    }

    /// Of a commit: a precondition that does not hold has a code of its own for each sort.
    pub(crate) fn of_commit(status: &Status) -> Self {
        match status.code() {
            Code::FailedPrecondition | Code::AlreadyExists | Code::NotFound => Self::Conflict,
            _ => Self::of("commit", status),
        }
    }

    pub(crate) fn timed_out(what: &str) -> Self {
        Self::Unavailable(format!("Firestore does not answer ({what})"))
    }
}

fn words(what: &str, status: &Status) -> String {
    format!("Firestore, {what}: {:?}: {}", status.code(), status.message())
}

impl From<Fail> for StoreError {
    fn from(fail: Fail) -> Self {
        match fail {
            Fail::Unavailable(why) | Fail::Refused(why) => Self::Unavailable(why),
            Fail::Conflict => Self::Unavailable("Firestore: others change the same things all the time".to_owned()),
            Fail::Large => Self::Event("it is more than one commit of Firestore takes".to_owned()),
            Fail::Invalid(why) => Self::Event(why),
            Fail::Damaged(what) => Self::Unavailable(format!("Firestore holds what this store did not write: {what}")),
        }
    }
}
