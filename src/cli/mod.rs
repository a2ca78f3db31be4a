//! The command line, with one file for each subcommand. A subcommand's error is one line for the operator.

mod address;
mod backup;
mod check_config;
mod client;
mod compact;
mod completions;
mod delete;
mod doctor;
mod export;
mod group;
mod health;
mod import;
mod invite;
mod key_packages;
mod keygen;
mod man;
mod moving;
mod publish;
mod relay;
mod reload;
mod req;
mod restore;
mod roster;
mod stats;
mod sync;
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
    Delete(delete::Delete),
    Doctor(doctor::Doctor),
    Export(export::Export),
    Group(group::Group),
    Health(health::Health),
    Import(import::Import),
    Invite(invite::Invite),
    #[command(name = "keypackages")]
    KeyPackages(key_packages::KeyPackages),
    Keygen(keygen::Keygen),
    Man(man::Man),
    Publish(publish::Publish),
    Reload(reload::Reload),
    Req(req::Req),
    Restore(restore::Restore),
    Roster(roster::Roster),
    Stats(stats::Stats),
    Sync(sync::Sync),
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
            Command::Delete(command) => command.run(),
            Command::Doctor(command) => command.run(),
            Command::Export(command) => command.run(),
            Command::Group(command) => command.run(),
            Command::Health(command) => command.run(),
            Command::Import(command) => command.run(),
            Command::Invite(command) => command.run(),
            Command::KeyPackages(command) => command.run(),
            Command::Keygen(command) => command.run(),
            Command::Man(command) => command.run(),
            Command::Publish(command) => command.run(),
            Command::Reload(command) => command.run(),
            Command::Req(command) => command.run(),
            Command::Restore(command) => command.run(),
            Command::Roster(command) => command.run(),
            Command::Stats(command) => command.run(),
            Command::Sync(command) => command.run(),
            Command::VerifyStore(command) => command.run(),
        }
    }
}
