//! The reference access service as a program: `cargo run -p acl-service`.

use std::{net::SocketAddr, path::PathBuf};

use acl_service::Directory;
use clap::Parser;

/// Answers rnostr's questions about the members of groups from a JSON file.
#[derive(Parser)]
struct Arguments {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// JSON file of the groups, read anew for each question.
    #[arg(long, default_value = "examples/acl-service/groups.json")]
    groups: PathBuf,
    /// File with the bearer token that the relay sends (`acl_token`). Without one everybody is answered.
    #[arg(long)]
    token_file: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let token = match &arguments.token_file {
        Some(file) => Some(std::fs::read_to_string(file)?.trim().to_owned()),
        None => None,
    };
    let listener = tokio::net::TcpListener::bind(arguments.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, Directory::new(arguments.groups, token).router()).await
}
