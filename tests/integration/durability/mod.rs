//! Acknowledged events survive failures of the process, the map and the disk; a stop is orderly.

mod full;
mod kill;
mod lifetime;
mod load;
mod open;
mod race;
mod stop;
