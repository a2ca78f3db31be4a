//! What the specification and the decisions promise, a test for each promise.
