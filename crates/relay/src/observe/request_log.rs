//! The end of each event and request: a line if it was slow, and a trace if the operator collects them.

use std::time::{Duration, Instant};

use nostr_protocol::{Filter, Kind};

use super::{
    request_id::RequestIds,
    slow::{EventTimes, ReadWork, SlowLog},
    traces::{Stages, Traces},
};
use crate::{config::Server, delivery::writer::Arrival, error::StartError, system::clock::Clock};

/// See the module.
pub(crate) struct RequestLog {
    ids: RequestIds,
    slow: SlowLog,
    traces: Traces,
}

impl RequestLog {
    /// The record that the configuration asks for. Ids begin at `first_id`.
    ///
    /// # Errors
    /// [`StartError`] if traces cannot be sent to the configured endpoint.
    pub(crate) fn open(server: &Server, clock: &dyn Clock, first_id: u64) -> Result<Self, StartError> {
        let (ids, slow) = (RequestIds::from(first_id), SlowLog::new(server.slow_request_ms));
        Ok(Self { ids, slow, traces: Traces::open(server, clock)? })
    }

    /// The arrival of an event or a request at this moment.
    pub(crate) fn arrival(&self) -> Arrival {
        Arrival { request: self.ids.next(), at: Instant::now() }
    }

    /// Notes an event that the store was asked about, and has decided.
    pub(crate) fn event(&self, arrival: Arrival, kind: Kind, times: &EventTimes) {
        self.slow.event(arrival.request, kind, times);
        self.traces.event(arrival.request, kind, times);
    }

    /// Notes an event that was refused before.
    pub(crate) fn refused(&self, arrival: Arrival, kind: Kind) {
        self.traces.refused(arrival.request, kind, arrival.at);
    }

    /// Notes a request that was answered.
    pub(crate) fn read(&self, door: Door, arrival: Arrival, stages: Stages<'_>, filters: &[Filter], work: ReadWork) {
        let took = arrival.at.elapsed().saturating_sub(work.with_client);
        self.slow.read(arrival.request, door.word(), took, filters, work);
        self.traces.read(door.verb(), arrival.request, arrival.at, stages, work);
    }

    /// Notes an HTTP request to this route that was answered, after `with_client` of waiting for its client.
    pub(crate) fn route(&self, arrival: Arrival, method: &str, route: &str, with_client: Duration) {
        self.slow.route(arrival.request, method, route, arrival.at.elapsed().saturating_sub(with_client));
    }

    /// Whether there are traces to send.
    pub(crate) const fn sends_traces(&self) -> bool {
        self.traces.is_on()
    }

    /// Sends the traces that wait. Blocks for a short time.
    pub(crate) fn close(&self) {
        self.traces.close();
    }
}

/// A way to read by WebSocket.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Door {
    Req,
    Count,
    Neg,
}

impl Door {
    const fn word(self) -> &'static str {
        match self {
            Self::Req => "req",
            Self::Count => "count",
            Self::Neg => "neg",
        }
    }

    const fn verb(self) -> &'static str {
        match self {
            Self::Req => "REQ",
            Self::Count => "COUNT",
            Self::Neg => "NEG-OPEN",
        }
    }
}
