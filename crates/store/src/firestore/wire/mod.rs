//! The service's API: the connection, the calls with their deadlines, values of fields, times, and failures.
//!
//! This module knows nothing of events or groups. Every call to the service is made here, so that deadlines and the
//! number of calls under way are bounded in one place. Debug builds alone look into `documents`, to check that a query
//! has its index.

pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod connect;
pub(crate) mod fail;
pub(crate) mod line;
pub(crate) mod queries;
pub(crate) mod reads;
pub(crate) mod value;
