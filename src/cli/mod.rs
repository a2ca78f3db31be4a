//! The command line, with one file for each subcommand. A subcommand's error is one line for the operator.

mod address;
mod backup;
mod check_config;
mod compact;
mod completions;
mod doctor;
mod export;
mod health;
mod import;
mod invite;
mod keygen;
mod man;
mod moving;
mod relay;
mod reload;
mod restore;
mod stats;
mod verify_store;

use clap::{Parser, Subcommand};

/// A Nostr relay that is also the delivery service for MLS groups and Noise direct messages.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Relay(relay::Relay),
    Backup(backup::Backup),
    CheckConfig(check_config::CheckConfig),
    Compact(compact::Compact),
    Completions(completions::Completions),
    Doctor(doctor::Doctor),
    Export(export::Export),
    Health(health::Health),
    Import(import::Import),
    Invite(invite::Invite),
    Keygen(keygen::Keygen),
    Man(man::Man),
    Reload(reload::Reload),
    Restore(restore::Restore),
    Stats(stats::Stats),
    VerifyStore(verify_store::VerifyStore),
}

impl Cli {
    pub(crate) fn run(self) -> Result<(), String> {
        match self.command {
            Command::Relay(command) => command.run(),
            Command::Backup(command) => command.run(),
            Command::CheckConfig(command) => command.run(),
            Command::Compact(command) => command.run(),
            Command::Completions(command) => command.run(),
            Command::Doctor(command) => command.run(),
            Command::Export(command) => command.run(),
            Command::Health(command) => command.run(),
            Command::Import(command) => command.run(),
            Command::Invite(command) => command.run(),
            Command::Keygen(command) => command.run(),
            Command::Man(command) => command.run(),
            Command::Reload(command) => command.run(),
            Command::Restore(command) => command.run(),
            Command::Stats(command) => command.run(),
            Command::VerifyStore(command) => command.run(),
        }
    }
}
