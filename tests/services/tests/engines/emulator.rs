//! The Firestore emulator.

use rnostr_test_services::{FirestoreEmulator, require};

use crate::support::{all_end, family, http};

#[test]
fn answers_and_starts_again() {
    let Some(()) = require(FirestoreEmulator::available()) else { return };
    let mut emulator = FirestoreEmulator::start();
    let host = emulator.host();
    assert!(http(&host, "GET", "/", "").unwrap().starts_with("HTTP/1.1 200"));

    let before = family(emulator.pid().unwrap());
    emulator.kill();
    all_end(&before);
    assert_eq!(emulator.pid(), None);
    assert!(http(&host, "GET", "/", "").is_err());

    emulator.restart();
    assert_eq!(emulator.host(), host);
    assert!(http(&host, "GET", "/", "").unwrap().starts_with("HTTP/1.1 200"));
    let after = family(emulator.pid().unwrap());
    drop(emulator);
    all_end(&after);
}

#[test]
fn projects_are_kept_apart() {
    let Some(()) = require(FirestoreEmulator::shared_available()) else { return };
    let emulator = FirestoreEmulator::shared();
    let (one, two) = (emulator.project(), emulator.project());
    assert_ne!(one, two);
    for project in [&one, &two] {
        let is_id = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        assert!((6..=30).contains(&project.len()) && project.chars().all(is_id), "{project} is a project's id");
    }
    let documents = |project: &str| format!("/v1/projects/{project}/databases/(default)/documents/things");
    let thing = r#"{"fields":{"name":{"stringValue":"a thing"}}}"#;
    let made = http(&emulator.host(), "POST", &format!("{}?documentId=a", documents(&one)), thing).unwrap();
    assert!(made.starts_with("HTTP/1.1 200"), "{made}");
    let read = |project: &str| http(&emulator.host(), "GET", &documents(project), "").unwrap();
    assert!(read(&one).contains("a thing"), "{}", read(&one));
    assert!(!read(&two).contains("a thing"), "{}", read(&two));
}
