//! The parts of the benchmark.
pub mod hostile;
pub mod instances;
pub mod load;
pub mod process;
pub mod report;
pub mod rest;
pub mod scenario;
