//! The parts of the benchmark.
pub mod instances;
pub mod load;
pub mod process;
pub mod report;
pub mod scenario;
