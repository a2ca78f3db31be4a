//! Admission of connections: an address has so many at one time, and opens so many in a minute.
//!
//! Source: docs/rules.md, "Rate limits" 9. A connection is refused before its handshake costs anything.

use std::{io::Write as _, sync::Arc};

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::net::TcpStream;

use super::places::{Place, Places};
use crate::{app::App, config, rate_limit::AddressBlock};

/// Seconds after which a client of an address with too many connections is told to try again.
const PLACE_RETRY_SECS: u64 = 60;

/// The connections of all addresses.
pub(super) struct Admission {
    places: Arc<Places>,
}

/// The refusal of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionRefused {
    /// The key of `[server]` that sets the bound, which is also the metric's label.
    bound: &'static str,
    retry_secs: u64,
}

impl Admission {
    /// The admission that `[server]` configures.
    pub(super) fn new(server: &config::Server) -> Self {
        Self { places: Places::new(server.connections_per_address_max) }
    }

    /// Takes a place for a new connection of this address.
    ///
    /// # Errors
    /// When the address has too many connections, or opened too many in the last minute.
    pub(super) fn admit(&self, app: &App, block: AddressBlock) -> Result<Place, ConnectionRefused> {
        let refused = |bound, retry_secs| {
            app.metrics.error(bound);
            ConnectionRefused { bound, retry_secs }
        };
        let place = self.places.take(block);
        let place = place.ok_or_else(|| refused("connections_per_address_max", PLACE_RETRY_SECS))?;
        match app.limits.handshake(block, app.clock.now_ms()) {
            Ok(()) => Ok(place),
            Err(retry) => {
                app.metrics.rate_limited("connection");
                Err(refused("handshakes_per_minute_max", retry.secs()))
            }
        }
    }
}

impl ConnectionRefused {
    /// Writes the refusal to a socket whose request is not read, as far as the system takes it at once.
    pub(super) fn write_to(self, stream: TcpStream) {
        let Self { retry_secs, .. } = self;
        let text = self.text();
        let answer = format!(
            "HTTP/1.1 429 Too Many Requests\r\nretry-after: {retry_secs}\r\nconnection: close\r\n\
             content-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        // A client that does not get the answer sees that the connection is closed.
        let _ = stream.into_std().and_then(|mut stream| stream.write(answer.as_bytes()));
    }

    fn text(self) -> String {
        let Self { bound, retry_secs } = self;
        let reason = match bound {
            "connections_per_address_max" => "your address has too many connections open",
            _ => "your address opened too many connections",
        };
        format!("{reason}; retry in {retry_secs} s\n")
    }
}

impl IntoResponse for ConnectionRefused {
    fn into_response(self) -> Response {
        let headers = [(header::RETRY_AFTER, self.retry_secs.to_string())];
        (StatusCode::TOO_MANY_REQUESTS, headers, self.text()).into_response()
    }
}
