//! Failures of this store.

use tokio_postgres::error::SqlState;

use crate::{OpenError, StoreError};

/// A failure inside this store.
#[derive(Debug)]
pub(super) enum Fail {
    /// The server, or the connection to it, failed.
    Database(tokio_postgres::Error),
    /// No connection was free or could be made.
    Pool(String),
    /// No answer came in time.
    Late,
    /// A transaction that held its locks took longer than it may.
    Overtime,
    /// The connection gave no answer at all, before it did anything.
    Silent,
    /// Another transaction holds a lock, mostly the log's. It was ended if it waited for an instance that does not
    /// answer.
    Locked,
    /// The database holds something that this store did not write.
    Corrupt(&'static str),
    /// The log is not the one that this process has read.
    OtherHistory,
    /// This build cannot use the database, or the setting names none. The text is for the operator.
    Unfit(String),
}

impl From<tokio_postgres::Error> for Fail {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl From<deadpool_postgres::PoolError> for Fail {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(error) => Self::Database(error),
            other => Self::Pool(other.to_string()),
        }
    }
}

impl Fail {
    /// Whether the server refused the data, so that other events may succeed.
    pub(super) fn is_about_data(&self) -> bool {
        let Self::Database(error) = self else { return false };
        // Class 22 is data exceptions; 54 is limits of the program, for example a row too large for its index.
        error.code().is_some_and(|code| matches!(code.code().get(..2), Some("22" | "54")))
    }

    /// Whether the server ended a statement that took longer than it may.
    pub(super) fn was_cancelled(&self) -> bool {
        matches!(self, Self::Database(error) if error.code() == Some(&SqlState::QUERY_CANCELED))
    }

    /// Whether a lock was not free in time.
    pub(super) fn waited_for_lock(&self) -> bool {
        matches!(self, Self::Database(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE))
    }

    /// Whether the connection may still wait for an answer. Such a connection is not used again.
    pub(super) const fn leaves_connection_unknown(&self) -> bool {
        matches!(self, Self::Late | Self::Overtime | Self::Silent)
    }

    pub(super) fn to_store_error(&self) -> StoreError {
        let full = |code: &SqlState| matches!(*code, SqlState::DISK_FULL);
        match self {
            Self::Database(error) if error.code().is_some_and(full) => StoreError::Full(self.text()),
            Self::OtherHistory => StoreError::Replaced(self.text()),
            _ => StoreError::Unavailable(self.text()),
        }
    }

    pub(super) fn to_open_error(&self) -> OpenError {
        match self {
            Self::Unfit(text) => OpenError::Refused(text.clone()),
            Self::Corrupt(text) => OpenError::Refused((*text).to_owned()),
            // The operator has to change the password or the database's name first.
            Self::Database(error)
                if error.code().is_some_and(|code| matches!(code.code().get(..2), Some("28" | "3D" | "42"))) =>
            {
                OpenError::Refused(self.text())
            }
            _ => OpenError::Unreachable(self.text()),
        }
    }

    /// The failure with its causes. The text has no part of the database's address.
    fn text(&self) -> String {
        match self {
            Self::Database(error) => {
                let mut text = match error.as_db_error() {
                    Some(error) => format!("{} ({})", error.message(), error.code().code()),
                    None => error.to_string(),
                };
                let mut cause = std::error::Error::source(error).filter(|_| error.as_db_error().is_none());
                while let Some(error) = cause {
                    let part = error.to_string();
                    if !text.contains(&part) {
                        text = format!("{text}: {part}");
                    }
                    cause = error.source();
                }
                text
            }
            Self::Pool(text) | Self::Unfit(text) => text.clone(),
            Self::Late | Self::Overtime | Self::Silent => "the database did not answer in time".to_owned(),
            Self::Locked => "another transaction holds the lock of the log".to_owned(),
            Self::Corrupt(text) => (*text).to_owned(),
            Self::OtherHistory => {
                "the database's log lacks what was read of it: it was restored, or a standby took over \
                that lacked the last commits; restart this process"
                    .to_owned()
            }
        }
    }
}
