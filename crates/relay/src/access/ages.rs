//! The ages of the service's answers, and its failures.

use std::time::{Duration, Instant};

use nostr_extensions::NostrGroupId;
use parking_lot::Mutex;
use quick_cache::unsync::Cache;

use super::{Askers, service::Failure};

/// Most groups that the service knows and whose answers' ages are remembered.
const KNOWN_GROUPS_MAX: usize = 65_536;
/// Most groups that the service does not know and whose answers' ages are remembered. Ids that somebody made up are
/// among these alone.
const UNKNOWN_GROUPS_MAX: usize = 65_536;
/// Time after a failure, in milliseconds, in which the group is not asked about again, or no group if the service is
/// away.
const PAUSE_MS: u64 = 1_000;

/// See the module.
pub(super) struct Ages(Mutex<Answers>);

struct Answers {
    known: Cache<NostrGroupId, Asked>,
    unknown: Cache<NostrGroupId, Asked>,
    /// The service did not answer until then.
    away_until: Option<Instant>,
    /// Set while the operator has been told that the service is away.
    is_away: bool,
}

/// The last questions about one group.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// Time of the last question that was answered.
    answered: Option<Instant>,
    /// Time of the last question that failed since.
    failed: Option<Instant>,
}

impl Default for Ages {
    fn default() -> Self {
        Self(Mutex::new(Answers {
            known: Cache::new(KNOWN_GROUPS_MAX),
            unknown: Cache::new(UNKNOWN_GROUPS_MAX),
            away_until: None,
            is_away: false,
        }))
    }
}

impl Ages {
    /// Time of the last question about the group that was answered.
    pub(super) fn answered(&self, id: &NostrGroupId) -> Option<Instant> {
        self.0.lock().asked(id).answered
    }

    /// Whether the service decided about the group by the last answer.
    pub(super) fn is_known(&self, id: &NostrGroupId) -> bool {
        self.0.lock().known.get(id).is_some()
    }

    /// Whether the service may be asked: it has not failed a moment ago.
    pub(super) fn may_ask(&self, id: &NostrGroupId) -> bool {
        let answers = self.0.lock();
        let is_away = answers.away_until.is_some_and(|until| Instant::now() < until);
        let paused = |failed: Instant| failed.elapsed() < Duration::from_millis(PAUSE_MS);
        !is_away && !answers.asked(id).failed.is_some_and(paused)
    }

    /// Groups that the service knows and whose answers are this old.
    pub(super) fn old(&self, age: Duration) -> Vec<NostrGroupId> {
        let answers = self.0.lock();
        let is_old = |asked: &Asked| asked.answered.is_none_or(|at| at.elapsed() >= age);
        answers.known.iter().filter(|(_, asked)| is_old(asked)).map(|(id, _)| id.clone()).collect()
    }

    /// Forgets the answer about a group.
    pub(super) fn forget(&self, id: &NostrGroupId) {
        let mut answers = self.0.lock();
        answers.known.remove(id);
        answers.unknown.remove(id);
    }

    /// Notes an answer to the question of this time.
    pub(super) fn note_answer(&self, id: &NostrGroupId, asked: Instant, is_known: bool) {
        let mut answers = self.0.lock();
        answers.away_until = None;
        if std::mem::take(&mut answers.is_away) {
            tracing::info!("the access service answers again");
        }
        let Answers { known, unknown, .. } = &mut *answers;
        let (into, other) = if is_known { (known, unknown) } else { (unknown, known) };
        other.remove(id);
        into.insert(id.clone(), Asked { answered: Some(asked), failed: None });
    }

    /// Notes that a question had no answer that counts. An id of a stranger's choice, at which the service fails,
    /// pauses the questions about that id alone.
    pub(super) fn note_failure(&self, id: &NostrGroupId, failure: &Failure, askers: Askers) {
        let mut answers = self.0.lock();
        let now = Instant::now();
        match failure {
            Failure::Away(why) => {
                if askers == Askers::Members {
                    answers.away_until = Some(now + Duration::from_millis(PAUSE_MS));
                }
                if !std::mem::replace(&mut answers.is_away, true) {
                    tracing::warn!(why, "the access service cannot be asked: groups close when their answers are old");
                }
            }
            Failure::Wrong(why) => tracing::warn!(why, "an answer of the access service counts for nothing"),
        }
        let asked = Asked { failed: Some(now), ..answers.asked(id) };
        let Answers { known, unknown, .. } = &mut *answers;
        let into = if known.get(id).is_some() { known } else { unknown };
        into.insert(id.clone(), asked);
    }
}

impl Answers {
    fn asked(&self, id: &NostrGroupId) -> Asked {
        self.known.get(id).or_else(|| self.unknown.get(id)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stranger that names an id at which the service fails shuts out no question about another group.
    #[test]
    fn a_failed_question_of_a_stranger_pauses_its_group_alone() {
        let id = |text: &str| NostrGroupId::parse(text).expect("an id");
        let away = || Failure::Away("500".to_owned());
        let ages = Ages::default();
        ages.note_failure(&id("invented"), &away(), Askers::Others(7));
        assert!(!ages.may_ask(&id("invented")) && ages.may_ask(&id("club")));
        ages.note_failure(&id("refused"), &Failure::Wrong("400".to_owned()), Askers::Members);
        assert!(!ages.may_ask(&id("refused")) && ages.may_ask(&id("club")));
        ages.note_failure(&id("club"), &away(), Askers::Members);
        assert!(!ages.may_ask(&id("team")), "the service is away for members too");
        ages.note_answer(&id("team"), Instant::now(), true);
        assert!(ages.may_ask(&id("other")), "it answers again");
    }
}
