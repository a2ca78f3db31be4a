//! The task of one connection: it reads, answers and sends.
//!
//! The task reads nothing while it writes an answer, so a client that does not read is not read either. Nothing of such
//! a client grows but its outbox, which is bounded.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use nostr_extensions::Reader;
use nostr_protocol::message::{
    Answer, ClientMessage, MessageError, Verb, auth_frame, closed_frame, head, neg_refused_frame, notice_frame,
};
use tokio::{
    task::yield_now,
    time::{Instant, sleep_until, timeout},
};
use yawc::{Frame, OpCode, close::CloseCode};

use super::{
    Caller, Client, Session,
    at_program::AtProgram,
    handlers::{self, event::Payment},
    lifetime,
    waiting::{Request, Waiting},
    wire::{Accepted, ConnectionEnd, Wire},
};
use crate::{
    app::App,
    delivery::{
        Outbox,
        groups::NamedGroups,
        outbox::Challenge,
        writer::{IN_FLIGHT_MAX, InFlight},
    },
    memory::Held,
    rate_limit::{Fault, Payer},
    shares::Share,
    system::random,
};

/// Most frames that are put together before they are written.
const FRAMES_PER_FLUSH_MAX: usize = 128;
/// Most bytes that are put together before they are written.
const BYTES_PER_FLUSH_MAX: usize = 256 << 10;
/// Bytes of a request from which on its length is paid for before it is read.
const LONG_BYTES: usize = 16 << 10;
/// Most bytes of a message that are read before other tasks run: filters of so many take about half a millisecond.
const PARSED_AT_ONCE_BYTES_MAX: usize = 64 << 10;
/// Bytes that a message and its parsed form take for each byte of its text, while it is handled.
pub(super) const MESSAGE_FACTOR: usize = 4;
/// The reason of the close frame for a client whose messages were malformed too often.
const TOO_MANY_FAULTS: &str = "too many messages or events were malformed; mend the client, then connect again";
/// The reason of the close frame for a client that holds the most memory when there is no more.
const NO_MEMORY: &str = "the relay is short of memory, and this connection holds the most; ask for less at one time";
/// Longest wait at the end for events that are under way, in seconds.
const SETTLE_SECS_MAX: u64 = 5;

/// Serves one client until it leaves or the relay stops, on the share of the one that pays for it.
pub(crate) fn serve(app: Arc<App>, client: Client, accepted: Accepted) -> impl Future<Output = ()> {
    let payer = Payer::Address(client.block());
    let share = app.shares.share(app.limits.payer_hash(payer));
    // Boxed, since each future that it is handed to would keep room for it twice.
    share.clone().run(Box::pin(serve_on(share, app, client, accepted)))
}

async fn serve_on(share: Share, app: Arc<App>, client: Client, accepted: Accepted) {
    let challenge = Challenge::new(random::challenge());
    let payer = app.limits.payer_hash(Payer::Address(client.block()));
    let outbox = Outbox::new(app.config.server.outbox_bytes_max, app.memory.open(payer), Arc::clone(&challenge));
    let outbox = Arc::new(outbox);
    let id = app.live.connect(Arc::clone(&outbox), payer);
    app.metrics.connection_opened();
    let mut session = Session {
        caller: Caller {
            reader: Reader::default(),
            in_flight: Arc::new(InFlight::new(Arc::clone(&outbox))),
            share,
            named: NamedGroups::default(),
            limits: app.limits.connection(app.clock.now_ms()),
            client,
            app: Arc::clone(&app),
        },
        challenge: Arc::clone(&challenge),
        neg: handlers::neg::NegSessions::default(),
        waiting: Waiting::new(app.config.auth.grace_ms, Arc::clone(&outbox)),
        at_program: AtProgram::default(),
        id,
    };
    let mut wire: Wire = Wire::new(accepted, app.stopping.clone(), Arc::clone(&outbox), Arc::clone(&app.metrics));
    let end = match run(&mut session, &mut wire, &outbox).await {
        Ok(()) => ConnectionEnd::Stop,
        Err(end) => end,
    };
    app.live.disconnect(id).await;
    if let ConnectionEnd::Close(..) | ConnectionEnd::Stop = end {
        // Accepted events are answered before the connection ends. One that the relay closes, by an order or for want
        // of memory, does not wait for the operator's program.
        let settled = async {
            if matches!(end, ConnectionEnd::Stop) {
                decided(&mut session, &outbox).await;
            }
            session.caller.in_flight.settled().await;
        };
        let _ = timeout(Duration::from_secs(SETTLE_SECS_MAX), settled).await;
        while let Ok(true) = drain(&app, &mut wire, &outbox).await {}
    }
    match end {
        ConnectionEnd::Close(code, reason) => {
            let _ = wire.send_close(code, reason).await;
            wire.close().await;
        }
        ConnectionEnd::Left => wire.close().await,
        ConnectionEnd::Stop => wire.end_without_close().await,
        ConnectionEnd::Gone => {}
    }
    drop(wire);
    outbox.close();
    app.metrics.connection_closed();
    // A client that leaves behind its last event has published it. The connection keeps its place until then, so that
    // the number of places bounds the events that wait.
    decided(&mut session, &outbox).await;
}

/// Waits until the event that the operator's program is asked about is refused or with the writer, or until its memory
/// is needed.
async fn decided(session: &mut Session, outbox: &Outbox) {
    tokio::select! {
        () = session.at_program.settled() => {}
        () = outbox.holding().shed().cancelled() => {}
    }
}

/// Serves until the relay stops, or the connection has lasted for as long as it may. All work is boxed while
/// it lasts, so that a connection that waits for some does not keep the room for it.
///
/// # Errors
/// The reason why the connection ends before.
async fn run(session: &mut Session, wire: &mut Wire, outbox: &Outbox) -> Result<(), ConnectionEnd> {
    let app = Arc::clone(&session.caller.app);
    wire.send(auth_frame(session.challenge.text())).await?;
    let idle = Duration::from_secs(app.config.server.ping_interval_secs);
    let mut last_read = Instant::now();
    let life_end = lifetime::end(app.config.server.connection_lifetime_secs, last_read);
    let mut changes = app.management.changes();
    session.look_at_orders()?;
    let mut is_pinged = false;
    // A message that came while no further event could be under way, or while one was at the operator's program. Until
    // then the client's pongs are read, and nothing behind it.
    let mut waiting: Option<(Frame, Held<'_>)> = None;
    // A connection that was given time to write may read one frame in it, so that events without end do not keep it
    // from reading.
    let mut has_turn = false;
    loop {
        let room = !session.at_program.waits() && session.caller.in_flight.count() < IN_FLIGHT_MAX;
        if let Some((frame, _held)) = waiting.take_if(|_| room) {
            session.caller.share.pause().await;
            Box::pin(receive(session, wire, outbox, frame)).await?;
            continue;
        }
        let frame = tokio::select! {
            // Not biased: a client to which events come without end is still read, and told when the relay stops.
            () = app.stopping.cancelled() => return Ok(()),
            () = outbox.holding().shed().cancelled() => {
                return Err(short_of_memory(&app, outbox));
            },
            // The sender lives as long as the relay.
            _ = changes.changed() => {
                session.look_at_orders()?;
                None
            }
            () = outbox.filled() => {
                session.caller.share.pause().await;
                if Box::pin(drain(&app, wire, outbox)).await? {
                    outbox.fill_again();
                }
                has_turn = true;
                None
            }
            () = session.neg.due() => {
                for ended in session.neg.end_late(app.clock.now()) {
                    Box::pin(wire.send(ended)).await?;
                }
                None
            }
            () = session.at_program.settled(), if session.at_program.waits() => {
                // The messages that waited for AUTH with the event came before the one that waits here.
                Box::pin(end_wait(session, wire)).await?;
                None
            }
            () = session.waiting.over(), if waiting.is_none() && !session.at_program.waits() => {
                Box::pin(time_is_over(session, wire)).await?
            }
            () = sleep_until(life_end.map_or(last_read + idle, |end| end.min(last_read + idle))) => {
                if life_end.is_some_and(|end| end <= Instant::now()) {
                    return Ok(());
                }
                // Behind a message that waits, or is under way, an answer may be unread.
                if is_pinged && waiting.is_none() && !wire.is_receiving() {
                    return Err(ConnectionEnd::Close(CloseCode::Policy, "no answer to a ping"));
                }
                is_pinged = true;
                last_read = Instant::now();
                Box::pin(wire.ping()).await?;
                None
            }
            frame = wire.next_frame(&session.caller.share, &mut has_turn), if waiting.is_none() => Some(frame?),
        };
        let Some(frame) = frame else { continue };
        app.metrics.frame_received(frame.payload().len());
        last_read = Instant::now();
        is_pinged = false;
        if !room && frame.opcode() == OpCode::Text {
            let held = outbox.holding().hold(frame.payload().len());
            waiting = Some((frame, held));
        } else {
            Box::pin(receive(session, wire, outbox, frame)).await?;
        }
    }
}

/// Drops what waits for a client whose connection ends for want of memory.
fn short_of_memory(app: &App, outbox: &Outbox) -> ConnectionEnd {
    app.metrics.error("memory");
    outbox.close();
    ConnectionEnd::Close(CloseCode::Again, NO_MEMORY)
}

/// Ends the wait for AUTH because its time is over. A frame that lies in the socket came before, and may be the AUTH:
/// the wait goes on, and the frame is returned.
async fn time_is_over(session: &mut Session, wire: &mut Wire) -> Result<Option<Frame>, ConnectionEnd> {
    session.caller.share.pause().await;
    if session.waiting.looks_again()
        && let Some(frame) = wire.next_frame(&session.caller.share, &mut true).now_or_never()
    {
        return frame.map(Some);
    }
    session.waiting.end();
    end_wait(session, wire).await?;
    Ok(None)
}

/// Writes some of the frames that wait. Returns whether more may wait.
async fn drain(app: &App, wire: &mut Wire, outbox: &Outbox) -> Result<bool, ConnectionEnd> {
    let (mut frames, mut bytes, mut oldest) = (0, 0, None);
    let is_full = |frames, bytes| frames >= FRAMES_PER_FLUSH_MAX || bytes >= BYTES_PER_FLUSH_MAX;
    let waiting = std::iter::from_fn(|| {
        let frame = if is_full(frames, bytes) { None } else { outbox.pop() }?;
        frames += 1;
        bytes += frame.byte_len();
        oldest = oldest.or_else(|| frame.committed());
        Some(frame)
    });
    wire.feed(waiting).await?;
    wire.flush().await?;
    if let Some(committed) = oldest {
        app.metrics.delivered_since(committed);
    }
    Ok(is_full(frames, bytes))
}

/// Handles a frame of the client.
async fn receive(session: &mut Session, wire: &mut Wire, outbox: &Outbox, frame: Frame) -> Result<(), ConnectionEnd> {
    match frame.opcode() {
        OpCode::Text => {}
        OpCode::Ping => return wire.send_own().await,
        OpCode::Close => return Err(ConnectionEnd::Left),
        OpCode::Binary => return Err(ConnectionEnd::Close(CloseCode::Unsupported, "messages are text")),
        _ => return Ok(()),
    }
    let payload = frame.into_payload();
    let _held = outbox.holding().hold(MESSAGE_FACTOR * payload.len());
    let Ok(text) = std::str::from_utf8(&payload) else {
        return Err(ConnectionEnd::Close(CloseCode::Invalid, "text is not UTF-8"));
    };
    handle(session, wire, text, None).await?;
    // The message may have been the AUTH for which others wait.
    end_wait(session, wire).await
}

/// Handles the messages that waited for AUTH, in their order, once the wait has ended, up to an event that the
/// operator's program is asked about. Each takes the client's share of the processor again.
async fn end_wait(session: &mut Session, wire: &mut Wire) -> Result<(), ConnectionEnd> {
    while !session.at_program.waits()
        && let Some(waited) = session.waiting.next()
    {
        session.caller.share.pause().await;
        if session.caller.in_flight.count() >= IN_FLIGHT_MAX {
            session.caller.in_flight.settled().await;
        }
        let (text, payment) = waited.into_parts();
        handle(session, wire, &text, payment).await?;
    }
    Ok(())
}

/// Handles a text message. A message that waited for AUTH may have been paid for when it came.
async fn handle(
    session: &mut Session,
    wire: &mut Wire,
    text: &str,
    paid: Option<Payment>,
) -> Result<(), ConnectionEnd> {
    let filters_max = session.caller.app.config.limitation.max_filters;
    if text.len() >= LONG_BYTES
        && let Some(refused) = refuse_unread(session, text).await
    {
        return wire.send(refused).await;
    }
    // The event in a message is read by its handler.
    let is_long_request =
        text.len() > PARSED_AT_ONCE_BYTES_MAX && !matches!(head(text).0, Some(Verb::Event | Verb::Auth));
    let message = if is_long_request {
        let (app, outbox) = (&session.caller.app, session.caller.in_flight.outbox());
        let text = text.to_owned();
        let parse = move || ClientMessage::parse(&text, filters_max).map(ClientMessage::into_owned);
        tokio::select! {
            biased;
            () = outbox.holding().shed().cancelled() => {
                return Err(short_of_memory(app, outbox));
            }
            () = app.stopping.cancelled() => return Err(ConnectionEnd::Stop),
            message = session.caller.share.beside(parse) => message,
        }
    } else {
        ClientMessage::parse(text, filters_max)
    };
    if text.len() >= LONG_BYTES {
        yield_now().await;
    }
    match message {
        Ok(ClientMessage::Event(json)) => handlers::event::handle(session, text, json.get(), paid).await,
        Ok(message) => Box::pin(handlers::handle(session, wire, text, message)).await?,
        Err(error) => {
            session.caller.app.metrics.error("message");
            let fault = if error.subscription.is_some() { Fault::Request } else { Fault::Malformed };
            session.caller.fault(fault, text.len());
            let answer = answer_to(session, error).await;
            wire.send(answer).await?;
        }
    }
    if session.caller.limits.has_too_many_faults() {
        session.caller.app.metrics.error("faults");
        return Err(ConnectionEnd::Close(CloseCode::Policy, TOO_MANY_FAULTS));
    }
    Ok(())
}

/// Charges for the length of a request, and gives the answer where the payer's requests were too long lately. Nothing
/// of it is read then but its id.
async fn refuse_unread(session: &mut Session, text: &str) -> Option<Answer> {
    let (verb, Some(id)) = head(text) else { return None };
    let rejection = session.caller.app.live.charge_length(session.id, text.len()).err()?;
    session.caller.app.metrics.error("long_requests");
    session.caller.app.metrics.rate_limited("req");
    Some(answer_to(session, MessageError { verb, subscription: Some(id), rejection }).await)
}

/// The answer to text that is no message. A request whose id can be made out ends with it.
async fn answer_to(session: &mut Session, error: MessageError) -> Answer {
    let rejection = error.rejection;
    match (error.verb, error.subscription) {
        (Some(Verb::Req), Some(id)) => {
            session.waiting.drop_request(Request::Subscription, &id);
            session.caller.app.live.unsubscribe(session.id, &id).await;
            closed_frame(&id, &rejection)
        }
        (Some(Verb::Count), Some(id)) => closed_frame(&id, &rejection),
        (Some(Verb::NegOpen | Verb::NegMsg), Some(id)) => neg_refused_frame(&id, &rejection),
        _ => notice_frame(&rejection.to_string()),
    }
}
