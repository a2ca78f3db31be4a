//! Marmot's way: clients that authenticate only to read their gift wraps, and groups whose id is their secret.

use nostr_protocol::Kind;
use serde_json::json;

use super::{
    super::client::{Answer, Client, Trouble},
    Address,
    advice::{Advice, Step},
    person::{Person, group_message, random_id},
    report::Report,
};

/// Plays it, as far as the relay's configuration offers it.
///
/// # Errors
/// The relay gives no answer.
pub(super) async fn play(relay: &Address, report: &mut Report) -> Result<(), Trouble> {
    let carol = Person::new()?;
    let mut client = Client::connect(relay).await?;
    const PACKAGE: &str = "Carol publishes a KeyPackage without AUTH";
    let answer = client.publish(&carol.key_package(Kind::ADDRESSABLE_KEY_PACKAGE)?).await?;
    let is_published = answer.accepted;
    if note(report, PACKAGE, Step::KeyPackage, answer, "\"Identity\" 8") {
        talk(relay, report).await?;
        receive(relay, &carol, report).await?;
    }
    if is_published {
        const STEP: &str = "Carol's key vanishes";
        let answer = client.publish(&carol.vanish(&relay.name)?).await?;
        note(report, STEP, Step::Vanish(&relay.url), answer, "\"Deletion\" 7");
    }
    Ok(())
}

/// Two clients without keys talk in an unlisted group.
async fn talk(relay: &Address, report: &mut Report) -> Result<(), Trouble> {
    const STEP: &str = "a message to an unlisted group";
    let group = random_id();
    let (mut writer, mut reader) = (Client::connect(relay).await?, Client::connect(relay).await?);
    let filter = json!({"kinds": [445], "#h": [group]});
    if let Err(reason) = reader.request("group", filter).await? {
        let advice = Advice::of(Step::UnlistedMessage, &reason);
        report.off(STEP, reason, advice);
        return Ok(());
    }
    let message = group_message(&group, "sealed by the doctor for nobody")?;
    let answer = writer.publish(&message).await?;
    if note(report, STEP, Step::UnlistedMessage, answer, "\"Unlisted groups\" 2") {
        const READS: &str = "whoever knows the group's id reads it";
        let id = reader.next_event("group").await?.id();
        if id == message.id() {
            report.passed(READS, "it came live", "\"Unlisted groups\" 2");
        } else {
            report.failed(READS, format!("another event came: {id}"), Advice::of_silence());
        }
    }
    Ok(())
}

/// Carol authenticates, and finds a gift wrap that came while she was away.
async fn receive(relay: &Address, carol: &Person, report: &mut Report) -> Result<(), Trouble> {
    const STEP: &str = "a gift wrap to Carol by a client without a key";
    let wrap = Person::gift_wrap(&carol.hex(), None, "sealed by the doctor for nobody")?;
    let answer = Client::connect(relay).await?.publish(&wrap).await?;
    if !note(report, STEP, Step::GiftWrap, answer, "\"Who may publish, who may read\" 2") {
        return Ok(());
    }
    const READS: &str = "Carol authenticates and finds it";
    let mut client = Client::connect(relay).await?;
    let answer = client.auth(&carol.keys).await?;
    if !answer.accepted {
        note(report, READS, Step::Auth(&relay.url), answer, "\"Identity\" 4");
        return Ok(());
    }
    match client.request("inbox", json!({"kinds": [1059], "#p": [carol.hex()]})).await? {
        Ok(ids) if ids.contains(&wrap.id().to_hex()) => {
            report.passed(READS, "the relay served it", "\"Who may publish, who may read\" 1");
        }
        Ok(_) => report.failed(READS, "the relay served no such event", Advice::of_silence()),
        Err(reason) => {
            let advice = Advice::of(Step::Request, &reason);
            report.failed(READS, reason, advice);
        }
    }
    Ok(())
}

/// Notes an answer, and returns whether the event was accepted. A relay that asks for AUTH, or has no unlisted groups,
/// does not offer this way.
fn note(report: &mut Report, name: &'static str, step: Step<'_>, answer: Answer, rule: &'static str) -> bool {
    if answer.accepted {
        report.passed(name, "the relay accepted it", rule);
        return true;
    }
    let advice = Advice::of(step, &answer.reason);
    let is_off = ["auth-required:", "restricted:"].iter().any(|word| answer.reason.starts_with(word));
    match is_off {
        true => report.off(name, answer.reason, advice),
        false => report.failed(name, answer.reason, advice),
    }
    false
}
