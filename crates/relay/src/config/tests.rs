//! Tests of reading: every kind of error with its location, every key through the environment, the shipped files.

use std::path::{Path, PathBuf};

use nostr_extensions::Source;
use nostr_protocol::PublicKey;

use super::{section::ShownDefault, *};

const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn parse(text: &str) -> Result<Config, ConfigError> {
    parse_with(text, &[])
}

fn parse_with(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("relay.toml"), variables(env))
}

fn with_env(env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(None, variables(env))
}

fn variables(env: &[(&str, &str)]) -> Vec<(String, String)> {
    env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn error(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

fn env_error(env: &[(&str, &str)]) -> String {
    with_env(env).expect_err("the environment is wrong").to_string()
}

fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

#[test]
fn no_file_and_no_variables_are_the_defaults() {
    let config = with_env(&[("HOME", "/root"), ("PATH", "/bin")]).expect("defaults");
    assert_eq!(config, Config::default());
    assert_eq!(config.server.socket_address().to_string(), "127.0.0.1:8080");
    assert!(!config.auth.enabled && config.mls_gateway.unlisted_groups);
}

#[test]
fn each_error_names_its_line_and_what_would_be_right() {
    let cases = [
        ("[server]\n\nprot = 1", "relay.toml:3: server.prot: unknown key; did you mean port?"),
        ("log_format = 'json'", "relay.toml:1: log_format: not a key of this section; write log_format in [server]"),
        ("[auth]\nport = 1", "relay.toml:2: auth.port: not a key of this section; write port in [server]"),
        (
            "[auth]\ncolour = 1",
            "relay.toml:2: auth.colour: unknown key; the keys of [auth] are enabled, auth_grace_ms, pubkey_whitelist",
        ),
        ("\n[sever]\nport = 1", "relay.toml:2: sever: unknown section; did you mean [server]?"),
        (
            "[extensions.mls_gateway]\nkeypackage_max_per_owner = 94",
            "relay.toml:2: extensions.mls_gateway.keypackage_max_per_owner: out of range; write a whole number \
             from 1 to 93",
        ),
        (
            "[extensions.mls_gatway]\n",
            "relay.toml:1: extensions.mls_gatway: unknown section; did you mean [extensions.mls_gateway]?",
        ),
        ("server = 1", "relay.toml:1: server: this is a section; write [server] on a line of its own"),
        (
            "[server]\nport = \"8080\"",
            "relay.toml:2: server.port: this is text; write a whole number from 0 to 65535, without quotes",
        ),
        ("[server]\nport = 65536", "relay.toml:2: server.port: out of range; write a whole number from 0 to 65535"),
        ("[server]\nport = -1", "relay.toml:2: server.port: out of range; write a whole number from 0 to 65535"),
        (
            "[server]\nport = 99999999999999999999999999999999999999999",
            "relay.toml:2: server.port: this is a huge number; write a whole number from 0 to 65535",
        ),
        (
            "[server]\nport = 1.5",
            "relay.toml:2: server.port: this is a number with a fraction; write a whole number from 0 to 65535",
        ),
        (
            "[server]\nhost = 'localhost'",
            "relay.toml:2: server.host: not an IP address; write 127.0.0.1, 0.0.0.0, ::1 or ::",
        ),
        ("[server]\nhost = ''", "relay.toml:2: server.host: empty; write a value"),
        ("[auth]\nenabled = 'yes'", "relay.toml:2: auth.enabled: this is text; write true or false, without quotes"),
        (
            "[auth]\npubkey_whitelist = 'x'",
            "relay.toml:2: auth.pubkey_whitelist: this is text; write a list in brackets: [\"…\", \"…\"]",
        ),
        (
            "[auth]\npubkey_whitelist = [1]",
            "relay.toml:2: auth.pubkey_whitelist[0]: this is a number; write text in quotes",
        ),
        (
            "[data]\ndurability = 'never'",
            "relay.toml:2: data.durability: unknown value; write \"commit\" or \"interval\"",
        ),
        (
            "[server]\npublic_url = 'https://r.example'",
            "relay.toml:2: server.public_url: not a relay's URL; write it as clients do: wss://relay.example.com",
        ),
        (
            "[server]\ntrusted_proxies = ['10.0.0.0/8', 'proxy']",
            "relay.toml:2: server.trusted_proxies[1]: not a range of addresses; write 10.0.0.0/8, fd00::/8 or one \
             address",
        ),
        (
            "[strangers]\nfounding_by_invitation = true",
            "relay.toml:2: strangers.founding_by_invitation: nobody could found a group; write the keys that invite \
             into invitation_pubkeys",
        ),
        (
            "[retention]\nevents_per_key_max = 333334",
            "relay.toml:2: retention.events_per_key_max: write at most a third of max_query_cost, at which a count of \
             a key's events ends",
        ),
        (
            "[strangers]\ninbox_min_pow = 257",
            "relay.toml:2: strangers.inbox_min_pow: out of range; write a whole number from 0 to 256",
        ),
        (
            "[server]\nlog_level = 'inof'",
            "relay.toml:2: server.log_level: not a log level; write error, warn, info, debug or trace, or \
             module=level,…",
        ),
        ("[server]\ntls_cert = 'a.pem'", "relay.toml:2: server.tls_cert: set tls_key as well"),
        (
            "[limitation]\nmax_limit = 100\ndefault_limit = 200",
            "relay.toml:3: limitation.default_limit: write at most max_limit",
        ),
        (
            "[limitation]\nmax_event_length = 2_000_000",
            "relay.toml:2: limitation.max_event_length: write at most max_message_length",
        ),
        (
            "[extensions.mls_gateway]\napi_prefix = 'api/'",
            "relay.toml:2: extensions.mls_gateway.api_prefix: not a path; write it with a slash in front and none \
             at the end: /api/v1/mls",
        ),
        (
            "[server]\npublic_url = 'wss://relay.example/api/v1/mls/relay'",
            "relay.toml:2: server.public_url: the path lies under api_prefix, where the REST API is; write another \
             path, or another api_prefix",
        ),
        (
            "[extensions.mls_gateway]\nkeypackage_request_ttl = 604801",
            "relay.toml:2: extensions.mls_gateway.keypackage_request_ttl: out of range; write a whole number from 1 \
             to 604800",
        ),
        (
            "[extensions.mls_gateway]\nstorage_backend = 'sqlite'",
            "relay.toml:2: extensions.mls_gateway.storage_backend: unknown value; write \"embedded\", \"cloudsql\" \
             or \"firestore\"",
        ),
        (
            "[extensions.mls_gateway]\nstorage_backend = 'postgres'",
            "relay.toml:2: extensions.mls_gateway.storage_backend: database_url required for PostgreSQL; write \
             database_url = \"postgresql://user:password@host/db\"",
        ),
        (
            "[extensions.mls_gateway]\nstorage_backend = 'firestore'",
            if cfg!(feature = "firestore") {
                "relay.toml:2: extensions.mls_gateway.storage_backend: project_id required for Firestore backend; \
                 write project_id, or set GOOGLE_CLOUD_PROJECT"
            } else {
                "relay.toml:2: extensions.mls_gateway.storage_backend: storage_backend \"firestore\" is not in this \
                 build; build with --features mls_gateway_firestore, or write \"embedded\" or \"cloudsql\""
            },
        ),
        (
            "[server]\notlp_endpoint = 'collector:4317'",
            if cfg!(feature = "otlp") {
                "relay.toml:2: server.otlp_endpoint: not a URL; write http://127.0.0.1:4317"
            } else {
                "relay.toml:2: server.otlp_endpoint: traces are not in this build; build with --features otlp, or \
                 leave the key out"
            },
        ),
        (
            "[metrics]\nlisten = '9100'",
            "relay.toml:2: metrics.listen: not an address with a port; write 127.0.0.1:9100 or [::1]:9100",
        ),
        (
            "[extensions.mls_gateway]\nmembership_sources = [\n  'roster',\n  'acl',\n]",
            "relay.toml:2: extensions.mls_gateway.membership_sources: the source acl needs its service; write acl_url \
             = \"https://host/path\"",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn the_first_wrong_line_is_the_one_that_is_named() {
    assert!(error("[server]\nzzz = 1\naaa = 1").starts_with("relay.toml:2: server.zzz"));
    assert!(error("[server]\nworkers = 0\nhost = 'x'").starts_with("relay.toml:2: server.workers"));
}

#[test]
fn a_bad_public_key_is_named_by_its_own_line_and_not_repeated() {
    let text = format!("[auth]\npubkey_whitelist = [\n  '{HEX}',\n  'your-allowed-pubkey-2',\n]");
    let error = parse(&text).expect_err("no key");
    assert_eq!((error.line(), error.key()), (Some(4), Some("auth.pubkey_whitelist[1]")));
    assert!(error.to_string().ends_with("not a public key; write 64 lower-case hex digits or npub1…"));
    assert!(!error.to_string().contains("your-allowed"));
}

#[test]
fn what_is_not_toml_is_named_by_line_without_its_text() {
    let shown = error("[metrics]\nauth = \"s3cr3t\n");
    assert!(shown.starts_with("relay.toml:2: not TOML: "), "{shown}");
    assert!(!shown.contains("s3cr3t"));
    assert!(error("[server]\nport = 1\nport = 2").starts_with("relay.toml:3: not TOML: "));
    assert!(error(&"[".repeat(20_000)).starts_with("relay.toml:1: not TOML: "));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Some(Path::new("/nowhere/relay.toml")), []).expect_err("no file");
    assert!(error.to_string().starts_with("/nowhere/relay.toml: cannot be read: "), "{error}");
}

#[test]
fn hex_and_npub_name_the_same_key() {
    let key = PublicKey::from_hex(HEX).expect("hex");
    let text = format!("[auth]\npubkey_whitelist = ['{HEX}', '{}']", key.to_npub());
    assert_eq!(parse(&text).expect("keys").auth.pubkey_whitelist, [key, key]);
}

#[test]
fn secrets_are_shown_by_nothing() {
    let text = "[metrics]\nauth = 's3cr3t'\n\
        [extensions.mls_gateway]\ndatabase_url = 'postgresql://u:s3cr3t@h/d'\n\
        acl_token = 's3cr3t'\nredis_url = 'redis://u:s3cr3t@h'";
    let config = parse(text).expect("secrets");
    assert!(config.metrics.auth.as_ref().is_some_and(|token| token.matches("s3cr3t") && !token.matches("s3cr3x")));
    for shown in [format!("{config:?}"), config.summary().join("\n"), config.warnings().join("\n")] {
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }
    for text in [
        "[metrics]\nauth = ['s3cr3t']",
        "[extensions.mls_gateway]\ndatabase_url = { password = 's3cr3t' }",
        "[extensions.mls_gateway]\nacl_url = 'https://u:s3cr3t@h'",
        "[extensions.mls_gateway]\nredis_url = 'http://u:s3cr3t@h'",
    ] {
        assert!(!error(text).contains("s3cr3t"));
    }
}

/// For each key whose default the table can spell: the variable is known, its text is read, and gives the default.
#[test]
fn every_key_is_set_by_its_variable_and_the_table_says_the_default() {
    for key in keys::all() {
        let name = key.variable();
        let text = match (key.default, key.name) {
            (ShownDefault::Text(text), _) => text,
            (ShownDefault::Words(_), "workers" | "max_connections" | "memory_bytes_max") => continue,
            (ShownDefault::Words(_), "map_size_max_mib") if cfg!(target_pointer_width = "64") => "1048576",
            (ShownDefault::Words(_), "map_size_max_mib") => "1024",
            (ShownDefault::Words(_), "unlisted_groups") => "true",
            (ShownDefault::Words(_), "pid_file") => "",
            (ShownDefault::Words(_), other) => panic!("{other}: a default in words that this test does not know"),
        };
        let config = with_env(&[(&name, text)]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config, Config::default(), "{name}={text}");
    }
}

/// Another value for each key changes a field, and no two keys write to one field.
#[test]
fn every_key_has_a_place_of_its_own() {
    let mut seen: Vec<(String, Config)> = Vec::new();
    for key in keys::all() {
        let name = key.variable();
        if key.name == "otlp_endpoint" && !cfg!(feature = "otlp") {
            // No value is taken in a build without traces.
            continue;
        }
        let candidates = [
            "70000",
            "7777",
            "77",
            "true",
            "false",
            HEX,
            "wss://r.example",
            "https://a.example",
            "10.1.1.1",
            "json",
            "trace",
            "roster",
            "enforce",
            "strict",
            "on_read",
            "interval",
            "/other",
            "cloudsql",
            "postgres://db.example/rnostr",
            "redis",
            "redis://h:6379",
            "20000000",
            "127.0.0.1:9100",
            "1=30d",
        ];
        let changed = candidates.iter().find_map(|text| {
            let mut env = vec![(name.as_str(), *text)];
            // These keys are refused without another one.
            match key.name {
                "storage_backend" => {
                    env.push(("RNOSTR_EXTENSIONS__MLS_GATEWAY__DATABASE_URL", "postgres://localhost/db"));
                }
                "tls_cert" => env.push(("RNOSTR_SERVER__TLS_KEY", "k")),
                "tls_key" => env.push(("RNOSTR_SERVER__TLS_CERT", "c")),
                "wake" => env.push(("RNOSTR_EXTENSIONS__MLS_GATEWAY__REDIS_URL", "redis://other")),
                "founding_by_invitation" => env.push(("RNOSTR_STRANGERS__INVITATION_PUBKEYS", HEX)),
                _ => {}
            }
            with_env(&env).ok().filter(|config| *config != Config::default())
        });
        let changed = changed.unwrap_or_else(|| panic!("{name} changes nothing"));
        if let Some((other, _)) = seen.iter().find(|(_, config)| *config == changed) {
            panic!("{name} and {other} write to one field");
        }
        seen.push((name, changed));
    }
}

#[test]
fn the_environment_stands_over_the_file_and_its_own_names_over_the_specifications() {
    let file = "[server]\nport = 1\nlog_level = 'warn'\n[auth]\nenabled = false\n\
        [extensions.mls_gateway]\nproject_id = 'file'";
    let config = |env: &[(&str, &str)]| parse_with(file, env).expect("a configuration");
    assert_eq!(config(&[("PORT", "2")]).server.port, 2);
    assert_eq!(config(&[("PORT", "2"), ("RNOSTR_SERVER__PORT", "3")]).server.port, 3);
    assert_eq!(config(&[("PORT", "")]).server.port, 1);
    assert!(config(&[("NOSTR_AUTH_REQUIRED", "true")]).auth.enabled);
    assert!(!config(&[("NOSTR_AUTH_REQUIRED", "true")]).mls_gateway.unlisted_groups);
    assert_eq!(config(&[("LOG_LEVEL", "DEBUG")]).server.log_level, "debug");
    assert_eq!(config(&[("LOG_LEVEL", "debug"), ("RUST_LOG", "error,heed=warn")]).server.log_level, "error,heed=warn");
    let project = |config: Config| config.mls_gateway.project_id;
    assert_eq!(project(config(&[("GOOGLE_CLOUD_PROJECT", "g")])).as_deref(), Some("file"));
    let both = [("FIREBASE_PROJECT_ID", "f"), ("GOOGLE_CLOUD_PROJECT", "g")];
    assert_eq!(project(with_env(&both).expect("variables")).as_deref(), Some("g"));
    assert_eq!(project(with_env(&both[..1]).expect("variables")).as_deref(), Some("f"));
    let origins = with_env(&[("ALLOWED_ORIGINS", "https://a.example, https://b.example")]).expect("origins");
    assert!(origins.server.allowed_origins.allows("https://b.example"));
    assert!(!origins.server.allowed_origins.allows("https://c.example"));
}

#[test]
fn a_variable_replaces_a_value_that_this_build_does_not_have() {
    let file = "[extensions.mls_gateway]\nstorage_backend = 'firestore'";
    assert!(parse_with(file, &[("RNOSTR_EXTENSIONS__MLS_GATEWAY__STORAGE_BACKEND", "embedded")]).is_ok());
}

#[test]
fn a_wrong_variable_is_named() {
    let cases = [
        (("RNOSTR_SERVER_PORT", "1"), "RNOSTR_SERVER_PORT: unknown variable; did you mean RNOSTR_SERVER__PORT?"),
        (
            ("RNOSTR_WHAT__EVER", "1"),
            "RNOSTR_WHAT__EVER: unknown variable; write RNOSTR_SECTION__KEY with two underscores, as \
             RNOSTR_SERVER__PORT",
        ),
        (("PORT", "65536"), "PORT: server.port: out of range; write a whole number from 0 to 65535"),
        (("PORT", "http"), "PORT: server.port: not a whole number; write a whole number from 0 to 65535"),
        (
            ("RNOSTR_SERVER__PORT", ""),
            "RNOSTR_SERVER__PORT: server.port: not a whole number; write a whole number from 0 to 65535",
        ),
        (("NOSTR_AUTH_REQUIRED", "maybe"), "NOSTR_AUTH_REQUIRED: auth.enabled: not true or false; write true or false"),
        (
            ("RNOSTR_AUTH__PUBKEY_WHITELIST", "nsec1xyz"),
            "RNOSTR_AUTH__PUBKEY_WHITELIST: auth.pubkey_whitelist[0]: not a public key; write 64 lower-case hex \
             digits or npub1…",
        ),
    ];
    for (variable, expected) in cases {
        assert_eq!(env_error(&[variable]), expected);
    }
}

#[test]
fn a_list_in_a_variable_is_separated_by_commas() {
    let keys = format!("{HEX} ,, {}", PublicKey::from_hex(HEX).expect("hex").to_npub());
    let config = with_env(&[("RNOSTR_EXTENSIONS__MLS_GATEWAY__ADMIN_PUBKEYS", &keys)]).expect("keys");
    assert_eq!(config.mls_gateway.admin_pubkeys.len(), 2);
    let sources = with_env(&[("RNOSTR_EXTENSIONS__MLS_GATEWAY__MEMBERSHIP_SOURCES", "giftwrap,roster,giftwrap")]);
    let expected = [Source::Roster, Source::GiftWrap];
    assert_eq!(sources.expect("sources").mls_gateway.membership_sources, expected);
}

#[test]
fn cloud_run_has_defaults_of_its_own_unless_told_otherwise() {
    let cloud = with_env(&[("K_SERVICE", "relay"), ("PORT", "9000")]).expect("cloud run");
    assert!(cloud.on_cloud_run);
    assert_eq!(cloud.server.socket_address().to_string(), "0.0.0.0:9000");
    assert_eq!((cloud.server.log_format, cloud.server.connection_lifetime_secs), (LogFormat::Json, 3_600));
    let told = [
        ("K_SERVICE", "relay"),
        ("RNOSTR_SERVER__HOST", "::1"),
        ("RNOSTR_SERVER__LOG_FORMAT", "text"),
        ("RNOSTR_SERVER__CONNECTION_LIFETIME_SECS", "900"),
    ];
    let told = with_env(&told).expect("told").server;
    assert_eq!((told.host.to_string().as_str(), told.log_format), ("::1", LogFormat::Text));
    assert_eq!(told.connection_lifetime_secs, 900);
    assert_eq!(with_env(&[]).expect("defaults").server.connection_lifetime_secs, 0);
}

#[test]
fn the_embedded_store_on_cloud_run_is_warned_of() {
    let run = ("K_SERVICE", "relay");
    let store = ("RNOSTR_EXTENSIONS__MLS_GATEWAY__STORAGE_BACKEND", "cloudsql");
    let database = ("RNOSTR_EXTENSIONS__MLS_GATEWAY__DATABASE_URL", "postgresql://h/db?host=/cloudsql/p:r:i");
    for (environment, warned) in [(&[run][..], true), (&[run, store, database], false), (&[], false)] {
        let warnings = with_env(environment).expect("a configuration").warnings();
        let told = warnings.iter().any(|line| line.contains("goes with the instance"));
        assert_eq!(told, warned, "{environment:?}: {warnings:?}");
    }
}

#[test]
fn an_order_of_commits_without_an_archive_is_warned_of() {
    let warns = |text: &str| {
        let config = parse(&format!("[extensions.mls_gateway]\n{text}")).expect("a gateway");
        config.warnings().iter().any(|line| line.contains("commit_ordering"))
    };
    assert!(warns("commit_ordering = 'strict'\nenable_message_archive = false"));
    assert!(!warns("commit_ordering = 'strict'"));
    assert!(!warns("commit_ordering = 'advisory'\nenable_message_archive = false"));
}

#[test]
fn a_proxy_that_is_not_named_is_warned_of() {
    let warns =
        |text: &str| parse(text).expect("a server").warnings().iter().any(|line| line.contains("trusted_proxies"));
    let public = "[server]\npublic_url = 'wss://relay.example.com'\n";
    assert!(warns(public));
    assert!(!warns(&format!("{public}trusted_proxies = ['127.0.0.1']")));
    assert!(!warns(&format!("{public}tls_cert = 'cert.pem'\ntls_key = 'key.pem'")));
    assert!(!warns("[server]\npublic_url = 'ws://relay.example.com'"));
    assert!(!warns(""));
}

#[test]
fn limits_that_follow_others_shrink_with_them() {
    let config = parse("[limitation]\nmax_limit = 100\nmax_message_length = 65536").expect("limits");
    assert_eq!((config.limitation.default_limit, config.limitation.max_event_length), (100, 65_536));
}

#[test]
fn residents_are_the_listed_the_admins_and_the_system_key() {
    let key = |digit: &str| PublicKey::from_hex(&digit.repeat(64)).expect("hex");
    let text = format!(
        "[auth]\npubkey_whitelist = ['{}']\n[extensions.mls_gateway]\nadmin_pubkeys = ['{}']\nsystem_pubkey = '{}'",
        key("1"),
        key("2"),
        key("3"),
    );
    let config = parse(&text).expect("keys");
    let policy = config.policy();
    assert!(config.has_whitelist() && ["1", "2", "3"].iter().all(|digit| policy.is_resident(&key(digit))));
    assert!(!policy.is_resident(&key("4")) && policy.is_admin(&key("2")) && !policy.is_admin(&key("1")));
}

/// The specification's file is taken as a whole, with keys in place of its placeholders.
#[test]
fn every_key_of_the_specification_is_known() {
    let text = format!(
        "[server]\nhost = \"0.0.0.0\"\nport = 8080\nworkers = 2\n\
         [auth]\nenabled = true\npubkey_whitelist = [\"{HEX}\"]\n\
         [extensions.mls_gateway]\nstorage_backend = \"embedded\"\nproject_id = \"your-gcp-project\"\n\
         keypackage_ttl = 86400\nwelcome_ttl = 3600\nenable_api = true\napi_prefix = \"/api/v1/mls\"\n\
         enable_message_archive = true\nmessage_archive_ttl_days = 30\nsystem_pubkey = \"{HEX}\"\nadmin_pubkeys = []\n\
         keypackage_request_ttl = 604800\nroster_policy_ttl_days = 365\n[extensions.mls_gateway.rate_limits]\n\
         max_events_per_minute = 100\nmax_keypackages_per_hour = 10\nmax_group_messages_per_minute = 50\n"
    );
    let config = parse(&text).expect("the specification's keys");
    assert_eq!(config.server.workers, 2);
    assert!(config.auth.enabled && !config.mls_gateway.unlisted_groups);
}

#[test]
fn the_shipped_files_are_taken() {
    let rnostr = Config::load(Some(&workspace("config/rnostr.toml")), []).expect("config/rnostr.toml");
    assert!(rnostr.auth.enabled && !rnostr.mls_gateway.unlisted_groups && !rnostr.has_whitelist());
    let marmot = Config::load(Some(&workspace("config/marmot.toml")), []).expect("config/marmot.toml");
    assert!(!marmot.auth.enabled && marmot.mls_gateway.unlisted_groups && marmot.mls_gateway.enable_message_archive);
}

/// `docs/configuration.md` repeats the tables of keys between two marks; this test keeps them true.
#[test]
fn the_document_has_the_tables_of_keys() {
    let (begin, end) = ("<!-- keys: begin -->", "<!-- keys: end -->");
    let document = std::fs::read_to_string(workspace("docs/configuration.md")).expect("docs/configuration.md");
    let (_, rest) = document.split_once(begin).expect(begin);
    let (tables, _) = rest.split_once(end).expect(end);
    assert_eq!(tables.trim(), markdown().trim(), "replace them with the output of `rnostr check-config --keys`");
}
