//! A relay and clients for tests.
