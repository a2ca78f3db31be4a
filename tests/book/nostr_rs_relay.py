#!/usr/bin/env python3
"""Makes a file of the form in which nostr-rs-relay keeps its events, for the pages that import one.

    nostr_rs_relay.py EVENTS FILE      EVENTS has one event a line
"""

import json
import sqlite3
import sys

TABLE = """create table event (
    id integer primary key, event_hash blob not null, first_seen integer not null, created_at integer not null,
    expires_at integer, author blob not null, delegated_by blob, kind integer not null, hidden integer,
    content text not null)"""


def main() -> None:
    with open(sys.argv[1]) as lines, sqlite3.connect(sys.argv[2]) as store:
        store.execute(TABLE)
        for line in lines:
            event = json.loads(line)
            key, at = bytes.fromhex(event["pubkey"]), event["created_at"]
            row = (bytes.fromhex(event["id"]), at, at, key, event["kind"], line.strip())
            store.execute(
                "insert into event (event_hash, first_seen, created_at, author, kind, hidden, content)"
                " values (?, ?, ?, ?, ?, 0, ?)", row)


if __name__ == "__main__":
    main()
