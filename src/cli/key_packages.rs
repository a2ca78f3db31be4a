//! `rnostr keypackages`: the KeyPackages of an owner, as the directory of a relay lists them, and a request for more.
//!
//! The list comes from the REST API, which uses nothing up (docs/rules.md, "REST" 8); a REQ would, with
//! `keypackage_consumption = "on_read"`.

use std::io::{self, Write as _};

use nostr_extensions::mls_gateway::key_package::{describe, suite_name};
use nostr_protocol::{Event, Kind, PublicKey, Unverified, sign::SecretKey};
use serde_json::Value;

use super::{
    address::Address,
    client::{self, Client, Connection, Draft, Reply, Rest, next_cursor, public_key, sign, text},
    moving::now,
};

/// Most KeyPackages of one page. The largest ones of a page fit into an answer.
const PAGE_KEY_PACKAGES_MAX: usize = 50;
/// Most pages: no owner has as many KeyPackages.
const PAGES_MAX: usize = 20;

/// List an owner's KeyPackages: age, end, ciphersuite and use of each, and the stock
///
/// Nothing is used up by it. A KeyPackage of last resort is given again and again; of the others each is given to one
/// claimant. With the owner's key the relay also tells its own count.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, with an admin key that then asks the owner for more:\n  \
    rnostr keypackages npub1… --ask --relay wss://relay.example.com --key-file admin.key")]
pub(super) struct KeyPackages {
    /// The owner's key: 64 hex digits or npub1…
    #[arg(value_name = "OWNER")]
    owner: String,
    #[command(flatten)]
    connection: Connection,
    /// Publish a request for fresh KeyPackages to the owner (kind 447); the relay takes it from its admin keys alone
    #[arg(long)]
    ask: bool,
}

impl KeyPackages {
    pub(super) fn run(self) -> Result<(), String> {
        let owner = public_key("OWNER", &self.owner)?;
        let relay = self.connection.relay()?;
        let key = if self.ask { Some(self.connection.signing_key()?) } else { self.connection.key()? };
        client::run(async {
            let rest = Rest::new(&relay, key.as_ref())?;
            let listed = listed(&rest, &relay, &owner, key.is_some()).await?;
            let counted = match &key {
                Some(key) if key.public() == owner => counted(&rest, &relay).await?,
                _ => None,
            };
            show(&listed, counted);
            if self.ask
                && let Some(key) = &key
            {
                ask(&relay, key, &owner).await?;
            }
            Ok(())
        })
    }
}

/// A KeyPackage of the list.
struct Listed {
    event: Event,
    /// Unix seconds; `None` for one that does not end.
    expires_at: Option<u64>,
}

impl Listed {
    /// Reads an entry of the API, whose event must be a KeyPackage that the owner signed.
    fn read(entry: &Value, owner: &PublicKey) -> Option<Self> {
        let event = Unverified::parse(entry["event"].to_string().as_bytes()).and_then(Unverified::verify);
        let event = event.ok()?.into_event();
        if event.pubkey() != *owner || !event.kind().is_key_package() {
            return None;
        }
        let expires_at = match &entry["expires_at"] {
            Value::Null => None,
            end => Some(text::secs(end.as_str()?)?),
        };
        Some(Self { event, expires_at })
    }
}

async fn listed(rest: &Rest<'_>, relay: &Address, owner: &PublicKey, has_key: bool) -> Result<Vec<Listed>, String> {
    let url = &relay.url;
    let first = format!("/keypackages?owner={owner}&include=event&limit={PAGE_KEY_PACKAGES_MAX}");
    let (mut path, mut found) = (first.clone(), Vec::new());
    for _ in 0..PAGES_MAX {
        let page = match rest.get(&path).await? {
            Reply::Found(page) => page,
            Reply::NoDoor => {
                let prefix = &relay.api_prefix;
                return Err(format!("{url} has no REST API at {prefix}, and a REQ might use KeyPackages up"));
            }
            Reply::Refused(refusal) => {
                return Err(format!("{url} refuses: {refusal}{}", client::hint(refusal.reason(), has_key)));
            }
        };
        let entries = page["keypackages"].as_array().ok_or_else(|| format!("{url} gives no list of KeyPackages"))?;
        for entry in entries.iter().take(PAGE_KEY_PACKAGES_MAX) {
            let listed = Listed::read(entry, owner);
            found.push(listed.ok_or_else(|| format!("{url} lists a KeyPackage that the owner did not sign"))?);
        }
        match next_cursor(&page)? {
            Some(cursor) => path = format!("{first}&cursor={cursor}"),
            None => return Ok(found),
        }
    }
    Err(format!("{url} gives more than {PAGES_MAX} pages of KeyPackages"))
}

/// The relay's own numbers: unclaimed, and of last resort. `None` where it does not tell them.
async fn counted(rest: &Rest<'_>, relay: &Address) -> Result<Option<(u64, u64)>, String> {
    match rest.get("/keypackages/stock").await? {
        Reply::Found(stock) => Ok(stock["unclaimed"].as_u64().zip(stock["last_resort"].as_u64())),
        Reply::NoDoor => Ok(None),
        Reply::Refused(refusal) => Err(format!("{} does not tell the stock: {refusal}", relay.url)),
    }
}

fn show(listed: &[Listed], counted: Option<(u64, u64)>) {
    let now = now();
    let mut marked = 0;
    let mut lines = String::new();
    for Listed { event, expires_at } in listed {
        let described = describe(event.view());
        marked += u64::from(described.is_marked);
        let age = text::distance(event.created_at(), now);
        let end = expires_at.map_or("no end".to_owned(), |end| format!("ends {}", text::distance(end, now)));
        let suite = described.ciphersuite.map_or("unknown ciphersuite".into(), suite_name);
        let used = if described.is_marked { "last resort" } else { "given once" };
        let (id, kind) = (event.id(), event.kind().0);
        lines += &format!("{id}  kind {kind}  signed {age}  {end}  {used}  {suite}\n");
    }
    let once = listed.len() as u64 - marked;
    lines += &format!("stock: {once} to be given once, {marked} of last resort\n");
    if let Some((unclaimed, last_resort)) = counted {
        lines += &format!("by the relay's count: {unclaimed} unclaimed, {last_resort} of last resort\n");
    }
    if listed.is_empty() {
        lines += "An owner without KeyPackages and one that this key may not see are listed alike.\n";
    }
    // A reader that has seen enough (`| head`) is no failure.
    let _ = io::stdout().lock().write_all(lines.as_bytes());
}

async fn ask(relay: &Address, key: &SecretKey, owner: &PublicKey) -> Result<(), String> {
    let content = "{\"reason\":\"operator\",\"note\":\"please publish new KeyPackages\"}";
    let event = sign(&Draft::new(Kind::KEY_PACKAGE_REQUEST).tag(&["p", &owner.to_hex()]).content(content), key)?;
    let answer = Client::open(relay, Some(key)).await?.publish(&event).await?;
    if !answer.accepted {
        return Err(format!("{} refuses the request to the owner: {}", relay.url, answer.reason));
    }
    let _ = writeln!(io::stdout().lock(), "the owner is asked for KeyPackages: event {}", event.id());
    Ok(())
}
