//! What has its `OK true` stays, whatever happens to the process, the map or the disk below it; and stopping in order.

mod full;
mod kill;
mod load;
mod open;
mod race;
mod stop;
