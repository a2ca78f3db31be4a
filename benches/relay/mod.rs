//! The parts of the benchmark.
pub mod load;
pub mod process;
pub mod report;
pub mod scenario;
