//! `rnostr check-config` and `rnostr keygen`, and the faults that stop a start.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::run::{Ran, rnostr};

/// Writes a certificate and its key under these names.
pub(crate) fn certificate(directory: &Path, cert_name: &str, key_name: &str) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    fs::write(directory.join(cert_name), cert.pem()).expect("it is written");
    fs::write(directory.join(key_name), signing_key.serialize_pem()).expect("it is written");
}

fn errors(ran: &Ran) -> Vec<&str> {
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    ran.err.lines().filter_map(|line| line.strip_prefix("error: ")).collect()
}

#[test]
fn check_config_lists_all_mistakes() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    certificate(at, "cert.pem", "own.pem");
    certificate(at, "other-cert.pem", "other.pem");
    fs::write(at.join("taken"), "").expect("it is written");
    let config = "[server]\nprot = 1\nport = 70000\ntls_cert = \"cert.pem\"\ntls_key = \"other.pem\"\n\
                  [data]\npath = \"taken/data\"\n[extensions.mls_gateway]\nadmin_pubkeys = [\"npub1x\", \"nobody\"]\n";
    fs::write(at.join("relay.toml"), config).expect("it is written");
    let ran = rnostr(at, &["check-config", "-c", "relay.toml"]);
    let errors = errors(&ran);
    let wanted = [
        "relay.toml:2: server.prot: unknown key",
        "relay.toml:3: server.port: out of range",
        "relay.toml:9: extensions.mls_gateway.admin_pubkeys[0]: not a public key",
        "server.tls_key other.pem: this is not the key of the certificate in server.tls_cert cert.pem",
        "data.path taken/data: taken is no directory",
    ];
    assert_eq!(errors.len(), wanted.len(), "{}", ran.err);
    for (error, wanted) in errors.iter().zip(wanted) {
        assert!(error.starts_with(wanted), "{error} is not {wanted}");
    }
    certificate(at, "cert.pem", "other.pem");
    let config = "[server]\ntls_cert = \"cert.pem\"\ntls_key = \"other.pem\"\n";
    fs::write(at.join("relay.toml"), config).expect("it is written");
    assert!(rnostr(at, &["check-config", "-c", "relay.toml"]).succeeds().starts_with("ok\n"));
    assert!(!at.join("data").exists(), "the check makes no store");
    assert!(!at.join(".rnostr-check").exists(), "nothing of the check stays");
}

#[test]
fn a_certificate_that_cannot_be_used_stops_the_start_with_file_and_cause() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    certificate(at, "cert.pem", "key.pem");
    certificate(at, "other-cert.pem", "other.pem");
    fs::write(at.join("empty.pem"), "").expect("it is written");
    for (cert, key, cause) in [
        ("missing.pem", "key.pem", "server.tls_cert missing.pem: "),
        ("cert.pem", "missing.pem", "server.tls_key missing.pem: "),
        ("empty.pem", "key.pem", "server.tls_cert empty.pem: no certificate"),
        ("cert.pem", "other.pem", "server.tls_key other.pem: this is not the key"),
    ] {
        let config = format!("[server]\nport = 0\ntls_cert = \"{cert}\"\ntls_key = \"{key}\"\n");
        fs::write(at.join("relay.toml"), config).expect("it is written");
        for command in ["relay", "check-config"] {
            let error = rnostr(at, &[command, "-c", "relay.toml"]).fails();
            assert!(error.contains(cause), "{command}: {error}");
        }
    }
}

#[test]
fn the_shipped_configuration_warns_that_nobody_can_found_a_group() {
    let directory = tempfile::tempdir().expect("a directory");
    let shipped = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    let check = |path: &Path| {
        let path = path.to_str().expect("text");
        rnostr(directory.path(), &["check-config", "-c", path]).succeeds()
    };
    let warning = "warning: [extensions.mls_gateway] admin_pubkeys is empty";
    let said = check(&shipped("rnostr.toml"));
    assert!(said.contains(warning) && said.contains("write admin_pubkeys = [\"npub1…\"]"), "{said}");
    assert!(!check(&shipped("marmot.toml")).contains(warning), "its groups are unlisted");
    let text = fs::read_to_string(shipped("rnostr.toml")).expect("text");
    let own = directory.path().join("own.toml");
    let key = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";
    fs::write(&own, text.replace("admin_pubkeys = [", &format!("admin_pubkeys = [\n    \"{key}\","))).expect("written");
    assert!(!check(&own).contains(warning));
}

#[test]
fn the_example_environment_logs_at_info() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".env.example")).expect("text");
    for line in ["RUST_LOG=info", "LOG_LEVEL=info"] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn keygen_writes_a_key_for_its_owner_alone_and_overwrites_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let shown = rnostr(at, &["keygen", "--out", "admin.key"]).succeeds();
    let file = at.join("admin.key");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).expect("text");
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).expect(name);
        line[name.len()..].trim().to_owned()
    };
    assert!(shown.contains(&value("public_key")) && shown.contains(&value("npub")), "{shown}");
    assert!(!shown.contains(&value("secret_key")) && !shown.contains("nsec"), "{shown}");
    let error = rnostr(at, &["keygen", "--out", "admin.key"]).fails();
    assert!(error.contains("admin.key: exists already"), "{error}");
    assert_eq!(fs::read_to_string(&file).expect("text"), text);
    rnostr(at, &["keygen", "--json", "--out", "other.key"]).succeeds();
    assert!(fs::read_to_string(at.join("other.key")).expect("text").starts_with("{\"public_key\""));
}

/// Each command has a manual page and stands in the completions, with the examples of its help.
#[test]
fn every_command_has_a_manual_page_and_is_completed() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let help = rnostr(at, &["--help"]).succeeds();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<&str> =
        listed.map_while(|line| line.split_whitespace().next()).filter(|it| *it != "help").collect();
    assert!(commands.contains(&"backup") && commands.len() > 10, "{help}");
    rnostr(at, &["man", "--to", "."]).succeeds();
    let completions = rnostr(at, &["completions", "bash"]).succeeds();
    let tools = ["backup", "restore", "compact", "stats", "verify-store", "completions", "man"];
    let with_example = [&tools[..], &["req", "publish", "keypackages", "group", "roster"]].concat();
    assert!(with_example.iter().all(|command| commands.contains(command)), "{help}");
    for command in commands {
        let page = std::fs::read_to_string(at.join(format!("rnostr-{command}.1"))).expect("a page");
        let help = rnostr(at, &[command, "--help"]).succeeds();
        assert!(
            !with_example.contains(&command) || (help.contains("Example") && page.contains("Example")),
            "{help}{page}"
        );
        assert!(completions.contains(&format!("rnostr,{command})")), "{command}");
    }
}
