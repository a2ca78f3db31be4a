//! One client: a WebSocket, its subscriptions, and what it has authenticated.
//!
//! One task reads, answers and sends. It reads nothing while an answer is being written, so a client that does not read
//! is not read either, and nothing of it grows but the outbox, which is bounded.

use std::{future::poll_fn, net::IpAddr, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, SinkExt as _};
use nostr_extensions::{READER_KEYS_MAX, Reader};
use nostr_protocol::{
    Filter, PublicKey, Rejection,
    auth::RelayNames,
    message::{ClientMessage, MessageError, Verb, auth_frame, closed_frame, neg_err_frame, notice_frame},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use yawc::{Frame, HttpWebSocket, OpCode, WebSocketError, close::CloseCode};

use crate::{
    app::App,
    handlers,
    live::ConnectionId,
    outbox::{Outbox, Outgoing},
    rate_limit::{Class, Receipt},
    writer::{IN_FLIGHT_MAX, InFlight},
};

/// Longest wait for a client to take what is written to it.
const WRITE_SECS_MAX: u64 = 30;
/// The same, once the relay is stopping.
const STOPPING_WRITE_SECS_MAX: u64 = 2;
/// Most frames that are put together before they are written.
const FRAMES_PER_FLUSH_MAX: usize = 128;
/// The same in bytes: what a slow client is given [`WRITE_SECS_MAX`] for.
const BYTES_PER_FLUSH_MAX: usize = 256 << 10;
/// Longest wait for the client to close its side.
const CLOSE_SECS_MAX: u64 = 2;
/// Longest wait at the end for events that are under way.
const SETTLE_SECS_MAX: u64 = 5;

/// What is known of a client before its first message.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address, as far as it can be trusted.
    pub address: IpAddr,
    /// How it may name this relay.
    pub names: Arc<RelayNames>,
}

/// The state of one connection.
pub struct Session {
    pub(crate) app: Arc<App>,
    pub(crate) peer: Peer,
    pub(crate) challenge: String,
    pub(crate) reader: Reader,
    pub(crate) id: ConnectionId,
    pub(crate) publisher: Arc<InFlight>,
    pub(crate) neg: handlers::neg::Sessions,
}

/// Why a connection ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The client left, or the network failed.
    Gone,
    /// Close frames were exchanged, or the answer to one waits to be sent: nothing else may follow.
    Left,
    /// The relay closes it, with this code and reason.
    Close(CloseCode, &'static str),
}

/// Sends frames to the client, with back-pressure.
pub(crate) struct Wire {
    socket: HttpWebSocket,
    stopping: CancellationToken,
}

impl Wire {
    /// Queues a frame into the socket's buffer.
    pub(crate) async fn feed(&mut self, frame: Outgoing) -> Result<(), End> {
        let bytes = frame.into_bytes();
        self.within(async |socket| socket.feed(Frame::text(bytes)).await).await
    }

    /// Queues frames into the socket's buffer.
    pub(crate) async fn feed_all(&mut self, frames: impl Iterator<Item = Outgoing>) -> Result<(), End> {
        self.within(async |socket| {
            for frame in frames {
                socket.feed(Frame::text(frame.into_bytes())).await?;
            }
            Ok(())
        })
        .await
    }

    /// Writes what was fed.
    pub(crate) async fn flush(&mut self) -> Result<(), End> {
        self.within(async |socket| socket.flush().await).await
    }

    async fn within(
        &mut self,
        write: impl AsyncFnOnce(&mut HttpWebSocket) -> Result<(), WebSocketError>,
    ) -> Result<(), End> {
        let patience = async {
            self.stopping.cancelled().await;
            sleep(Duration::from_secs(STOPPING_WRITE_SECS_MAX)).await;
        };
        tokio::select! {
            biased;
            written = timeout(Duration::from_secs(WRITE_SECS_MAX), write(&mut self.socket)) => match written {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(End::Gone),
            },
            () = patience => Err(End::Gone),
        }
    }

    /// Sends what the library answers by itself: a pong, or the close frame that ends the connection. It would do so when
    /// there is nothing to read; a client that never lets it come to that would have it queue answers without end.
    async fn send_own(&mut self) -> Result<(), End> {
        self.within(async |socket| poll_fn(|cx| socket.poll_ready_unpin(cx)).await).await
    }

    /// What a failed read means. To what it cannot read as a frame the library answers with a close frame of its own, and
    /// reads no further.
    fn end_of(&mut self, error: &WebSocketError) -> End {
        let next = if error.is_closed() { None } else { self.socket.next_frame().now_or_never() };
        match next {
            Some(Err(next)) if next.is_closed() => End::Left,
            _ => close_for(error),
        }
    }

    /// Sends one text frame at once.
    pub(crate) async fn send(&mut self, text: String) -> Result<(), End> {
        self.feed(Outgoing::Text(text)).await?;
        self.flush().await
    }
}

/// Serves one client until it leaves or the relay stops.
pub async fn serve(app: Arc<App>, peer: Peer, socket: HttpWebSocket) {
    let outbox = Arc::new(Outbox::new(app.config.server.outbox_bytes_max));
    let id = app.live.connect(Arc::clone(&outbox));
    app.metrics.connection_opened();
    let mut session = Session {
        challenge: crate::random::challenge(),
        reader: Reader::default(),
        publisher: Arc::new(InFlight::new(Arc::clone(&outbox))),
        neg: handlers::neg::Sessions::default(),
        id,
        peer,
        app: Arc::clone(&app),
    };
    let mut wire = Wire { socket, stopping: app.stopping.clone() };
    let end = match run(&mut session, &mut wire, &outbox).await {
        Ok(()) => End::Close(CloseCode::Away, "this relay is stopping"),
        Err(end) => end,
    };
    app.live.disconnect(id);
    if let End::Close(code, reason) = end {
        // What was accepted is answered before the connection closes.
        let _ = timeout(Duration::from_secs(SETTLE_SECS_MAX), session.publisher.settled()).await;
        while let Ok(true) = drain(&mut wire, &outbox).await {}
        let close = Frame::close(code, reason);
        let _ = wire.within(async |socket| socket.send(close).await).await;
    }
    if let End::Close(..) | End::Left = end {
        let _ = wire.send_own().await;
        let _ = timeout(Duration::from_secs(CLOSE_SECS_MAX), wire.socket.close()).await;
    }
    outbox.close();
    app.metrics.connection_closed();
}

async fn run(session: &mut Session, wire: &mut Wire, outbox: &Outbox) -> Result<(), End> {
    let app = Arc::clone(&session.app);
    wire.send(auth_frame(&session.challenge)).await?;
    let idle = Duration::from_secs(app.config.server.ping_interval_secs);
    let mut heard = Instant::now();
    let mut pinged = false;
    loop {
        let room = session.publisher.in_flight() < IN_FLIGHT_MAX;
        tokio::select! {
            // Not biased: a client to whom events come without end is still read, and told when the relay stops.
            () = app.stopping.cancelled() => return Ok(()),
            () = outbox.filled() => if drain(wire, outbox).await? {
                outbox.fill_again();
            },
            frame = timeout_at(heard + idle, wire.socket.next_frame()), if room => match frame {
                Ok(frame) => {
                    let frame = frame.map_err(|error| wire.end_of(&error))?;
                    heard = Instant::now();
                    pinged = false;
                    receive(session, wire, frame).await?;
                }
                Err(_) if pinged => return Err(End::Close(CloseCode::Policy, "no answer to a ping")),
                Err(_) => {
                    pinged = true;
                    heard = Instant::now();
                    wire.within(async |socket| socket.send(Frame::ping("")).await).await?;
                }
            },
        }
    }
}

/// The close code that fits what was wrong with a frame.
fn close_for(error: &WebSocketError) -> End {
    match error {
        WebSocketError::FrameTooLarge => End::Close(CloseCode::Size, "message too large"),
        WebSocketError::InvalidUTF8 => End::Close(CloseCode::Invalid, "text is not UTF-8"),
        error if error.is_protocol_error() => End::Close(CloseCode::Protocol, "not WebSocket (RFC 6455)"),
        _ => End::Gone,
    }
}

/// Writes some of what waits; says whether more may wait.
async fn drain(wire: &mut Wire, outbox: &Outbox) -> Result<bool, End> {
    let (mut frames, mut bytes) = (0, 0);
    let is_full = |frames, bytes| frames >= FRAMES_PER_FLUSH_MAX || bytes >= BYTES_PER_FLUSH_MAX;
    let waiting = std::iter::from_fn(|| {
        let frame = if is_full(frames, bytes) { None } else { outbox.pop() }?;
        frames += 1;
        bytes += frame.byte_len();
        Some(frame)
    });
    wire.feed_all(waiting).await?;
    wire.flush().await?;
    Ok(is_full(frames, bytes))
}

async fn receive(session: &mut Session, wire: &mut Wire, frame: Frame) -> Result<(), End> {
    match frame.opcode() {
        OpCode::Text => {}
        OpCode::Ping => return wire.send_own().await,
        OpCode::Close => return Err(End::Left),
        OpCode::Binary => return Err(End::Close(CloseCode::Unsupported, "messages are text")),
        _ => return Ok(()),
    }
    let payload = frame.into_payload();
    let Ok(text) = std::str::from_utf8(&payload) else {
        return Err(End::Close(CloseCode::Invalid, "text is not UTF-8"));
    };
    let filters_max = session.app.config.limitation.max_filters;
    match ClientMessage::parse(text, filters_max) {
        Ok(ClientMessage::Event(json)) => handlers::event::handle(session, json.get()).await,
        Ok(message) => Box::pin(handlers::handle(session, wire, message)).await?,
        Err(error) => {
            session.app.metrics.error("message");
            let frame = answer_to(session, error);
            wire.send(frame).await?;
        }
    }
    Ok(())
}

/// The answer to what is no message: where a request can be told apart by its id, that request has ended.
fn answer_to(session: &Session, error: MessageError) -> String {
    let rejection = Rejection::invalid(error.text);
    match (error.verb, error.subscription) {
        (Some(Verb::Req), Some(id)) => {
            session.app.live.unsubscribe(session.id, &id);
            closed_frame(&id, &rejection)
        }
        (Some(Verb::Count), Some(id)) => closed_frame(&id, &rejection),
        (Some(Verb::NegOpen | Verb::NegMsg), Some(id)) => neg_err_frame(&id, &rejection.to_string()),
        _ => notice_frame(&rejection.to_string()),
    }
}

impl Session {
    /// Adds a key that the client has proven.
    ///
    /// # Errors
    /// `restricted:` at the bound of [`READER_KEYS_MAX`].
    pub(crate) fn add_key(&mut self, key: PublicKey) -> Result<(), Rejection> {
        if self.reader.has(&key) {
            return Ok(());
        }
        if self.reader.keys().len() >= READER_KEYS_MAX {
            return Err(Rejection::restricted(format!(
                "a connection authenticates at most {READER_KEYS_MAX} keys; open another one"
            )));
        }
        let mut keys = self.reader.keys().to_vec();
        keys.push(key);
        self.reader = Reader::new(&keys);
        self.app.live.set_reader(self.id, self.reader.clone());
        Ok(())
    }

    /// An event or a proof came in: the address pays, unless a resident speaks.
    ///
    /// # Errors
    /// `rate-limited:`
    pub(crate) fn pay_address(&self, class: Class) -> Result<Receipt, Rejection> {
        let mut receipt = self.app.receipt();
        if !self.is_resident() {
            receipt.add(self.app.limits.address(self.peer.address, class, self.app.clock.now_ms())?);
        }
        Ok(receipt)
    }

    /// What came in was no event, or not signed by whom it says: the address pays once more.
    pub(crate) fn penalise_address(&self) {
        self.app.limits.invalid(self.peer.address, self.app.clock.now_ms());
    }

    /// Whether a key of the operator's list has authenticated.
    fn is_resident(&self) -> bool {
        self.reader.keys().iter().any(|key| self.app.policy.is_listed(key))
    }

    /// Checks what holds for every request: the id's length, the lists' lengths, and who may ask at all.
    pub(crate) fn check_request(&self, id: &str, filters: &[Filter]) -> Result<(), Rejection> {
        let limitation = &self.app.config.limitation;
        if id.is_empty() || id.chars().count() > limitation.max_subid_length {
            return Err(Rejection::invalid(format!(
                "a subscription id has 1 to {} characters",
                limitation.max_subid_length
            )));
        }
        if filters.iter().any(|filter| filter.longest_list() > limitation.max_tag_values) {
            return Err(Rejection::invalid(format!(
                "a list in a filter has at most {} values; send several filters",
                limitation.max_tag_values
            )));
        }
        self.app.gate.admit_request(&self.reader, filters)
    }
}
