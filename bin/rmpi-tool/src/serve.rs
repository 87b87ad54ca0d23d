//! `rmpi serve`: the embedded SSH server on one or more addresses in one process, each a node of its own. Ends
//! on SIGINT, SIGTERM or, if asked, with its standard input.

use crate::say;
use clap::Args;
use rmpi_ssh::{KeyPair, Server, ServerOptions};
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// Options of `rmpi serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address and port to listen on, port 0 for any; may be repeated
    #[arg(long, value_name = "ADDR:PORT", required = true)]
    listen: Vec<SocketAddr>,
    /// The host's private key (see rmpi keygen)
    #[arg(long, value_name = "FILE")]
    host_key: PathBuf,
    /// Public keys that may log in, one a line
    #[arg(long, value_name = "FILE")]
    authorized_keys: PathBuf,
    /// Beginning of the node ids (RMPI_NODE_ID) of the addresses; random otherwise
    #[arg(long, value_name = "PREFIX")]
    node_id: Option<String>,
    /// Let clients open TCP connections through us (jump host)
    #[arg(long)]
    forward: bool,
    /// End when standard input does
    #[arg(long)]
    until_eof: bool,
}

impl Serve {
    /// Serves until told to end.
    ///
    /// # Errors
    /// A line saying which key, file or address cannot be used.
    pub(crate) fn run(&self) -> Result<(), String> {
        let host_key = KeyPair::read(&self.host_key).map_err(|e| e.to_string())?;
        let authorized = rmpi_ssh::keys::read_authorized(&self.authorized_keys).map_err(|e| e.to_string())?;
        if authorized.is_empty() {
            return Err(format!("{} has no key: nobody could log in", self.authorized_keys.display()));
        }
        let options = ServerOptions { authorized, forward: self.forward, ..ServerOptions::new(host_key) };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| format!("cannot start: {e}"))?;
        runtime.block_on(self.serve(options))
    }

    async fn serve(&self, options: ServerOptions) -> Result<(), String> {
        let cannot = |e: std::io::Error| format!("cannot wait for signals: {e}");
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        let prefix = match &self.node_id {
            Some(prefix) => prefix.clone(),
            None => rmpi_ssh::server::unique_prefix().map_err(|e| e.to_string())?,
        };
        let mut servers = Vec::new();
        for (n, address) in self.listen.iter().enumerate() {
            let mut options = options.clone();
            options.node_id = Some(format!("{prefix}-{n}"));
            let server = Server::bind(*address, options)
                .await
                .map_err(|e| format!("cannot listen on {address}: {e}"))?;
            servers.push(server);
        }
        for server in &servers {
            say(&format!("listening {}", server.addr()));
        }
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = end_of_input(), if self.until_eof => {}
        }
        Ok(())
    }
}

/// Resolves when standard input has ended. Read on a plain thread, so that a pending read keeps nothing alive.
async fn end_of_input() {
    let (ended, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let _ = end.await;
}
