//! `GET keypackages/stock`: the numbers of one's own KeyPackages.
//!
//! Source: docs/rules.md, "Stock".

use nostr_store::Cost;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    error::read_failed,
    rest::{Problem, Visit, answer::Answer, problem::ProblemDocument},
    session::archive::Meter,
};

/// The numbers of an owner's KeyPackages.
#[derive(Serialize, ToSchema)]
pub(crate) struct StockAnswer {
    /// The owner's key, in hex: that of the proof.
    owner: String,
    /// Those that were never given, without those of last resort.
    #[schema(example = 12)]
    unclaimed: usize,
    /// Those that are given again and again.
    #[schema(example = 1)]
    last_resort: usize,
    /// The number of unclaimed ones below which the relay asks for more.
    #[schema(example = 3)]
    low_watermark: usize,
}

/// The numbers of one's own KeyPackages.
#[utoipa::path(get, path = "/keypackages/stock", tag = "keypackages", security(("nip98" = [])),
    responses(
        (status = 200, description = "The numbers.", body = StockAnswer),
        (status = 304, description = "The client has them."),
        (status = 401, description = "No proof, or a bad one.", body = ProblemDocument),
        (status = 403, description = "The relay takes no proof of this key.", body = ProblemDocument),
        (status = 429, description = "Too many requests, or too much reading.", body = ProblemDocument),
        (status = 503, description = "The store does not answer.", body = ProblemDocument),
    ))]
pub(in crate::rest) async fn stock(visit: Visit) -> Result<Answer, Problem> {
    let owner = visit.key()?;
    let app = visit.app();
    let mut meter = Meter::new(&visit.caller);
    meter.may_go_on().map_err(nostr_protocol::Rejection::from)?;
    app.delivery.fresh().await?;
    let turn = meter.turn_at_store().await;
    let stock = app.store.stock(&owner, app.clock.now()).await.map_err(read_failed)?;
    drop(turn);
    meter.charge(Cost::of_documents(1));
    let answer = StockAnswer {
        owner: owner.to_hex(),
        unclaimed: stock.unclaimed,
        last_resort: stock.last_resort,
        low_watermark: app.config.mls_gateway.keypackage_low_watermark,
    };
    Answer::json(&visit, &answer).await
}
