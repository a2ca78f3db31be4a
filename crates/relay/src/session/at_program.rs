//! The event of a connection that the operator's program is asked about.
//!
//! Source: docs/rules.md, "Management" 12 to 14. The program may take long. The event is therefore decided in a task of
//! its own, which holds nothing of the session: the connection goes on to deliver, to ping, to see orders and to end,
//! and the turn that the event holds at the program waits for no client that does not read. The connection handles no
//! further message until the event is with the writer, so its events keep their order, and it has one such event at
//! most.

use std::sync::Arc;

use nostr_extensions::{
    Publisher, Reader,
    kinds::{Budget, rules},
    strangers::StrangerRules,
};
use nostr_protocol::{Rejection, UnixSecs, Verified};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{Caller, Client, connection::MESSAGE_FACTOR, handlers::event};
use crate::{
    app::App,
    delivery::writer::{Handed, InFlight},
    rate_limit::Payer,
    write_policy,
};

/// The place of a connection's event at the program. The event is given up when this is dropped.
#[derive(Default)]
pub(super) struct AtProgram(Option<AbortOnDropHandle<()>>);

impl AtProgram {
    /// Whether an event waits.
    pub(super) const fn waits(&self) -> bool {
        self.0.is_some()
    }

    /// Takes an event in; none waits. Its task runs on a share of the connection's payer. A connection that is about to
    /// end for want of memory gives the event up.
    pub(super) fn put(&mut self, asked: Asked) {
        debug_assert!(!self.waits(), "a connection handles no further event meanwhile");
        if asked.held.in_flight.outbox().holding().shed().is_cancelled() {
            return;
        }
        let share = asked.app.shares.share(asked.handed.payer);
        self.0 = Some(AbortOnDropHandle::new(tokio::spawn(share.run(Box::pin(asked.settle())))));
    }

    /// Waits until the event is refused, or with the writer. Nothing is lost when this future is dropped before.
    pub(super) async fn settled(&mut self) {
        if let Some(task) = &mut self.0 {
            // A task that panicked has said so.
            let _ = task.await;
            self.0 = None;
        }
    }
}

/// An admitted event that is paid for, before the program is asked about it.
pub(crate) struct Asked {
    app: Arc<App>,
    held: Held,
    client: Client,
    reader: Reader,
    /// The party that pays, as the rules about groups see it.
    payer: Payer,
    verified: Verified,
    /// The proofs that inboxes asked of strangers when the rules admitted the event.
    strangers: StrangerRules,
    /// The orders since then.
    changes: watch::Receiver<u64>,
    handed: Handed,
    now: UnixSecs,
}

/// The memory of an event that waits, which its connection or request holds.
struct Held {
    in_flight: Arc<InFlight>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.in_flight.outbox().holding().shrink(self.bytes);
    }
}

impl Asked {
    /// The event of `handed`, which the rules admitted before any of `changes`.
    pub(super) fn new(
        caller: &Caller,
        (verified, payer): (Verified, Payer),
        changes: watch::Receiver<u64>,
        handed: Handed,
        now: UnixSecs,
    ) -> Self {
        let bytes = MESSAGE_FACTOR * verified.event().json().len();
        let held = Held { in_flight: Arc::clone(&caller.in_flight), bytes };
        held.in_flight.outbox().holding().grow(bytes);
        Self {
            app: Arc::clone(&caller.app),
            held,
            client: caller.client.clone(),
            reader: caller.reader.clone(),
            payer,
            verified,
            strangers: caller.app.policy().strangers.clone(),
            changes,
            handed,
            now,
        }
    }

    /// Asks the program, and hands the event to the writer or tells its publisher the refusal.
    pub(super) async fn settle(self) {
        let Self { app, held, .. } = &self;
        let (app, in_flight) = (Arc::clone(app), Arc::clone(&held.in_flight));
        let (event, arrival) = (self.verified.event().clone(), self.handed.arrival);
        match self.decided().await {
            Ok((handed, _held)) => event::hand_on(&app, handed, &in_flight).await,
            Err(rejection) => {
                event::note_refused(&app, arrival, event.kind());
                event::reject(&app, &in_flight, &event, rejection);
            }
        }
    }

    async fn decided(self) -> Result<(Handed, Held), Rejection> {
        let Self { app, client, reader, payer, verified, strangers, changes, mut handed, now, held } = self;
        let (address, authenticated) = (client.address, reader.primary());
        let source = write_policy::Source { address, authenticated, payer: handed.payer };
        app.write_policy.ask(handed.admitted.event(), source, now).await?;
        if changes.has_changed().unwrap_or(true) {
            // An order that was given while the event waited holds for it too.
            app.management.require_open(client.address)?;
            // The publisher would pay for another look at the inbox, and its session is elsewhere by now.
            if rules(verified.event().kind()).budget == Budget::GiftWraps && app.policy().strangers != strangers {
                return Err(Rejection::error("the rules for inboxes have changed meanwhile; send the event again"));
            }
            let publisher = Publisher { reader: &reader, names: &client.names };
            handed.admitted = event::decide(&app, verified, publisher, payer).await?.0;
        }
        Ok((handed, held))
    }
}
