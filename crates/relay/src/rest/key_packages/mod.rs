//! The directory of KeyPackages: claims, and an owner's stock.

pub(super) mod claim;
pub(super) mod owner;
pub(super) mod stock;
