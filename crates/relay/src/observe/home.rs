//! The page for people that open the relay's address: its address, its rules, its limits and its links.
//!
//! The page holds all that it shows: no script, no picture and no style is fetched. A click on the address selects it
//! as a whole, so that a visitor copies it without a script.

use std::fmt::{Display, Write as _};

use nostr_extensions::policy::KeptFor;

use super::info::{SOFTWARE, SUPPORTED_MIPS, SUPPORTED_NIPS, VERSION};
use crate::config::{Config, Information};

/// The style of pages, the only one that [`PAGE_CSP`] allows.
pub(crate) const PAGE_STYLE: &str = include_str!("page.css");

/// `Content-Security-Policy` of the page: allows its own style and the icon alone, and no frame around it.
pub(crate) const PAGE_CSP: &str = "default-src 'none'; \
                                    style-src 'sha256-nLYSBJUWS2wll2Lwgi6Y2EzgwxlmjbThfiuWzeRz8+A='; \
                                    img-src 'self'; \
                                    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The specifications of NIPs, each under its number.
const NIPS_URL: &str = "https://github.com/nostr-protocol/nips/blob/master";

/// The page of a relay that runs with `config` and keeps some kinds for a time. `url` is this relay's WebSocket URL;
/// every value is escaped.
pub(crate) fn page(config: &Config, retention: &[KeptFor], url: &str) -> String {
    let Information { name, description, .. } = &config.information;
    let (name, description, url) = (escape(name), escape(description), escape(url));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>{name}</title>\n<style>{PAGE_STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{name}</h1>\n<p class=\"lead\">{description}</p>\n\
         <section class=\"address\">\n<h2>Address</h2>\n<p><code class=\"url\">{url}</code></p>\n\
         <p class=\"hint\">This is a Nostr relay. Add this address to your Nostr client; a click selects it.</p>\n\
         </section>\n"
    );
    section(&mut page, "Rules", |page| list(page, &config.policies()));
    section(&mut page, "Groups", |page| push(page, format_args!("<p>{}</p>\n", groups(config))));
    section(&mut page, "Limits", |page| facts(page, &limits(config)));
    section(&mut page, "Kept for", |page| facts(page, &kept(config, retention)));
    section(&mut page, "Protocols", protocols);
    section(&mut page, "Links and people", |page| facts(page, &links(config)));
    push(&mut page, format_args!("</main>\n<footer>{SOFTWARE} {VERSION}</footer>\n</body>\n</html>\n"));
    page
}

/// Writing to a string cannot fail.
fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = page.write_fmt(text);
}

fn section(page: &mut String, title: &str, fill: impl FnOnce(&mut String)) {
    push(page, format_args!("<section>\n<h2>{title}</h2>\n"));
    fill(page);
    page.push_str("</section>\n");
}

fn list(page: &mut String, lines: &[String]) {
    page.push_str("<ul>\n");
    for line in lines {
        push(page, format_args!("<li>{}</li>\n", escape(line)));
    }
    page.push_str("</ul>\n");
}

/// A list of names and their values, which are HTML.
fn facts(page: &mut String, rows: &[(&str, String)]) {
    page.push_str("<dl>\n");
    for (name, value) in rows {
        push(page, format_args!("<div><dt>{}</dt><dd>{value}</dd></div>\n", escape(name)));
    }
    page.push_str("</dl>\n");
}

/// The rules of groups in two sentences.
fn groups(config: &Config) -> String {
    let managed = "The messages of a managed group are read and written by its members alone, and a member that is \
                   removed gets none of those that come after.";
    let unlisted = if config.mls_gateway.unlisted_groups {
        "A group that nobody manages is open to everyone who knows its id of 64 hex digits."
    } else {
        "The relay takes no message to a group without a list of members."
    };
    format!("{managed} {unlisted}")
}

fn limits(config: &Config) -> Vec<(&'static str, String)> {
    let (limits, rates) = (&config.limitation, &config.mls_gateway.rate_limits);
    let rate = |number: u32, period: &str| match number {
        0 => "any number".to_owned(),
        number => format!("{number} {period}"),
    };
    vec![
        ("One message", bytes(limits.max_message_length)),
        ("One event", bytes(limits.max_event_length)),
        ("Subscriptions of a connection", limits.max_subscriptions.to_string()),
        ("Filters of a request", limits.max_filters.to_string()),
        ("Events for a filter", limits.max_limit.to_string()),
        ("Events of a key or an address", rate(rates.max_events_per_minute, "a minute")),
        ("Messages of a key to a group", rate(rates.max_group_messages_per_minute, "a minute")),
        ("KeyPackages of a key", rate(rates.max_keypackages_per_hour, "an hour")),
    ]
}

fn kept(config: &Config, retention: &[KeptFor]) -> Vec<(&'static str, String)> {
    let gateway = &config.mls_gateway;
    let (messages, wraps) = if gateway.enable_message_archive {
        let days = plural(gateway.message_archive_ttl_days, "day");
        (days.clone(), days)
    } else {
        ("not kept".to_owned(), time(gateway.welcome_ttl_secs))
    };
    let mut rows = vec![
        ("Group and Noise messages", messages),
        ("Gift wraps", wraps),
        ("KeyPackages", format!("until they end, at most {}", time(gateway.keypackage_max_lifetime_secs))),
        ("Rosters", format!("{}; the list of members stays", plural(gateway.roster_policy_ttl_days, "day"))),
    ];
    for rule in retention {
        let kinds: Vec<String> = rule.kinds.iter().map(|range| kinds(range.first, range.last)).collect();
        rows.push(("By a rule", format!("kinds {}: {}", kinds.join(", "), time(rule.secs))));
    }
    rows.push(("All else", "until its author deletes it".to_owned()));
    rows
}

fn kinds(first: u16, last: u16) -> String {
    if first == last { first.to_string() } else { format!("{first} to {last}") }
}

fn protocols(page: &mut String) {
    page.push_str("<ul class=\"chips\">\n");
    for nip in SUPPORTED_NIPS {
        push(page, format_args!("<li><a href=\"{NIPS_URL}/{nip:02}.md\">NIP-{nip:02}</a></li>\n"));
    }
    for mip in SUPPORTED_MIPS {
        push(page, format_args!("<li>MIP-{mip:02}</li>\n"));
    }
    page.push_str("</ul>\n");
}

fn links(config: &Config) -> Vec<(&'static str, String)> {
    let information = &config.information;
    let mut rows = Vec::new();
    if let Some(key) = &information.pubkey {
        rows.push(("Operator", format!("<code class=\"url\">{}</code>", key.to_npub())));
    }
    let named = [
        ("Contact", &information.contact),
        ("Privacy policy", &information.privacy_policy),
        ("Terms of service", &information.terms_of_service),
    ];
    rows.extend(named.into_iter().filter_map(|(name, text)| Some((name, linked(text.as_deref()?)))));
    if config.mls_gateway.enable_api {
        let docs = format!("{}/docs", config.mls_gateway.api_prefix);
        rows.push(("REST API", format!("<a href=\"{0}\">{0}</a>", escape(&docs))));
    }
    if config.server.console {
        rows.push(("For admins", "<a href=\"/console\">console</a>".to_owned()));
    }
    rows.push(("For programs", "this address with <code>Accept: application/nostr+json</code> (NIP-11)".to_owned()));
    rows
}

/// The operator's text as a link, if it is one that a browser may follow, else as it is.
fn linked(text: &str) -> String {
    let behind_scheme = ["https://", "http://", "mailto:"].iter().find_map(|scheme| text.strip_prefix(scheme));
    match behind_scheme {
        Some(shown) => {
            format!("<a href=\"{}\" rel=\"noopener noreferrer\">{}</a>", escape(text), escape(shown))
        }
        None => escape(text),
    }
}

fn plural(number: impl Display + Into<u64> + Copy, unit: &str) -> String {
    format!("{number} {unit}{}", if number.into() == 1 { "" } else { "s" })
}

/// A time in the largest unit that divides it.
fn time(secs: u64) -> String {
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    let fitting = units.into_iter().find(|(size, _)| secs >= *size && secs.is_multiple_of(*size));
    let (size, unit) = fitting.unwrap_or((1, "second"));
    plural(secs / size, unit)
}

/// A size in the largest unit that divides it.
fn bytes(size: usize) -> String {
    match size {
        size if size >= 1 << 20 && size.is_multiple_of(1 << 20) => format!("{} MiB", size >> 20),
        size if size >= 1 << 10 && size.is_multiple_of(1 << 10) => format!("{} KiB", size >> 10),
        size => format!("{size} bytes"),
    }
}

/// `text` as HTML shows it, in an element or in a quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use nostr_extensions::KindRange;
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn the_page_escapes_what_it_shows() {
        let mut config = Config::default();
        config.information.name = "<script>alert(1)</script>".to_owned();
        config.information.contact = Some("\" onload='x' &".to_owned());
        let page = page(&config, &[], "wss://r.example/<b>");
        assert!(!page.contains("<script") && !page.contains("<b>") && !page.contains("onload='"));
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && page.contains("wss://r.example/&lt;b&gt;"));
        assert!(!page.contains("src=") && !page.contains("<link"), "nothing is fetched");
    }

    /// A browser runs `javascript:` of a link, so the operator's texts become links by their schemes alone.
    #[test]
    fn only_addresses_become_links() {
        let mut config = Config::default();
        config.information.privacy_policy = Some("javascript:alert(1)".to_owned());
        config.information.terms_of_service = Some("https://r.example/terms?a=\"b".to_owned());
        config.information.contact = Some("mailto:admin@r.example".to_owned());
        let page = page(&config, &[], "wss://r.example");
        let hrefs: Vec<&str> = page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let others: Vec<&&str> = hrefs.iter().filter(|href| !href.starts_with(NIPS_URL)).collect();
        let expected = ["mailto:admin@r.example", "https://r.example/terms?a=&quot;b", "/api/v1/mls/docs", "/console"];
        assert_eq!(others, expected.iter().collect::<Vec<_>>());
        assert!(page.contains("<dd>javascript:alert(1)</dd>"));
    }

    #[test]
    fn the_page_tells_the_limits_and_the_times() {
        let mut config = Config::default();
        config.mls_gateway.unlisted_groups = false;
        config.mls_gateway.message_archive_ttl_days = 1;
        config.mls_gateway.rate_limits.max_keypackages_per_hour = 0;
        config.limitation.max_event_length = 1_000;
        let rule =
            KeptFor { kinds: vec![KindRange { first: 20, last: 29 }, KindRange { first: 7, last: 7 }], secs: 5_400 };
        let page = page(&config, &[rule], "wss://r.example");
        for told in [
            "<dt>One message</dt><dd>1 MiB</dd>",
            "<dt>One event</dt><dd>1000 bytes</dd>",
            "<dt>KeyPackages of a key</dt><dd>any number</dd>",
            "<dt>Group and Noise messages</dt><dd>1 day</dd>",
            "<dt>By a rule</dt><dd>kinds 20 to 29, 7: 90 minutes</dd>",
            "no message to a group without a list of members",
            ">NIP-01</a>",
            "MIP-03",
        ] {
            assert!(page.contains(told), "{told} is missing in {page}");
        }
    }

    #[test]
    fn the_policy_lets_the_pages_own_style_in() {
        let hash = BASE64_STANDARD.encode(Sha256::digest(PAGE_STYLE));
        assert!(PAGE_CSP.contains(&format!("'sha256-{hash}'")), "sha256-{hash}");
    }
}
