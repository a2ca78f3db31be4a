//! Redis.

use rnostr_test_services::{Redis, require};

use crate::support::{MOMENT, WAIT, Wire, all_end, family};

#[test]
fn answers_and_starts_again() {
    let Some(()) = require(Redis::available()) else { return };
    let mut redis = Redis::start();
    let address = redis.address();
    assert_eq!(redis.url(), format!("redis://{address}/"));
    let mut wire = Wire::connect(&address).unwrap();
    assert_eq!(wire.ask("PING").unwrap(), "+PONG");
    assert_eq!(wire.ask("SET a b").unwrap(), "+OK");

    let before = family(redis.pid().unwrap());
    redis.kill();
    all_end(&before);
    assert_eq!(redis.pid(), None);
    assert_eq!(wire.read(WAIT).unwrap_or_default(), "", "its connections are closed");
    assert!(Wire::connect(&address).is_err());

    redis.restart();
    assert_eq!(redis.address(), address);
    assert_eq!(Wire::connect(&address).unwrap().ask("GET a").unwrap(), "$-1", "it keeps nothing");
    let after = family(redis.pid().unwrap());
    drop(redis);
    all_end(&after);
}

#[test]
fn pauses_and_resumes() {
    let Some(()) = require(Redis::available()) else { return };
    let mut redis = Redis::start();
    redis.pause();
    let mut wire = Wire::connect(&redis.address()).unwrap();
    wire.send("PING").unwrap();
    assert!(wire.read(MOMENT).is_err());
    redis.resume();
    assert_eq!(wire.read(WAIT).unwrap(), "+PONG");
}

#[test]
fn is_shared() {
    let Some(()) = require(Redis::shared_available()) else { return };
    let redis = Redis::shared();
    assert!(std::ptr::eq(redis, Redis::shared()));
    assert_eq!(Wire::connect(&redis.address()).unwrap().ask("PING").unwrap(), "+PONG");
}
