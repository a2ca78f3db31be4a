//! The proxy, before a Redis server.

use rnostr_test_services::{Proxy, Redis, require};

use crate::support::{MOMENT, WAIT, Wire};

#[test]
fn cuts_and_restores() {
    let Some(()) = require(Redis::shared_available()) else { return };
    let proxy = Proxy::start(&Redis::shared().address());
    let mut wire = Wire::connect(&proxy.address()).unwrap();
    assert_eq!(wire.ask("PING").unwrap(), "+PONG");
    for _ in 0..3 {
        proxy.cut();
        assert_eq!(wire.read(WAIT).unwrap_or_default(), "", "open connections are closed");
        assert!(Wire::connect(&proxy.address()).is_err(), "new connections are refused");
        proxy.cut();
        proxy.restore();
        wire = Wire::connect(&proxy.address()).unwrap();
        assert_eq!(wire.ask("PING").unwrap(), "+PONG");
    }
    let address = proxy.address();
    drop(proxy);
    assert_eq!(wire.read(WAIT).unwrap_or_default(), "");
    assert!(Wire::connect(&address).is_err());
}

#[test]
fn stalls_and_passes_the_held_bytes() {
    let Some(()) = require(Redis::shared_available()) else { return };
    let proxy = Proxy::start(&Redis::shared().address());
    let mut old = Wire::connect(&proxy.address()).unwrap();
    assert_eq!(old.ask("PING").unwrap(), "+PONG");
    proxy.stall();
    let mut new = Wire::connect(&proxy.address()).unwrap();
    for wire in [&mut old, &mut new] {
        wire.send("ECHO held").unwrap();
        assert!(wire.read(MOMENT).is_err());
    }
    proxy.restore();
    for wire in [&mut old, &mut new] {
        assert_eq!([wire.read(WAIT).unwrap(), wire.read(WAIT).unwrap()], ["$4", "held"]);
    }
    proxy.stall();
    proxy.cut();
    assert_eq!(old.read(WAIT).unwrap_or_default(), "", "a stalled connection can be cut");
}

#[test]
fn much_passes_in_both_directions() {
    let Some(()) = require(Redis::shared_available()) else { return };
    let proxy = Proxy::start(&Redis::shared().address());
    let mut wire = Wire::connect(&proxy.address()).unwrap();
    let text = "x".repeat(5_000_000);
    wire.send(&format!("*2\r\n$4\r\nECHO\r\n${}\r\n{text}", text.len())).unwrap();
    assert_eq!(wire.read(WAIT).unwrap(), format!("${}", text.len()));
    assert_eq!(wire.read(WAIT).unwrap(), text);
}

/// A server may start again, or start later than its proxy.
#[test]
fn its_server_may_stop_and_start() {
    let Some(()) = require(Redis::available()) else { return };
    let mut redis = Redis::start();
    let proxy = Proxy::start(&redis.address());
    redis.kill();
    let mut wire = Wire::connect(&proxy.address()).unwrap();
    assert_eq!(wire.ask("PING").unwrap_or_default(), "");
    redis.restart();
    assert_eq!(Wire::connect(&proxy.address()).unwrap().ask("PING").unwrap(), "+PONG");
}
