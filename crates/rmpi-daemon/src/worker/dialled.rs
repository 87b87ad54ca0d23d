//! The node's listener for PMIx clients, their streams, and the folder they keep files in. Everything is on
//! loopback: a stream is let in when the kernel says that it is of our own user.

use super::Worker;
use super::serve::Input;
use crate::kvs::{Heard, Requests};
use crate::peer;
use crate::staging::Folder;
use nix::libc;
use rmpi_pmi::api::{Conn, Event};
use rmpi_pmi::pmix::server::{PmixServer, Setup};
use rmpi_pmi::pmix::topology::Drawing;
use rmpi_types::NodeLaunch;
use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, spawn_local};

/// Streams open at once, at most.
const MAX_STREAMS: usize = 16 << 10;

/// The listener and what came through it.
#[derive(Debug)]
pub(super) struct Door {
    /// Its port of 127.0.0.1.
    pub(super) port: u16,
    accepting: AbortHandle,
    streams: HashMap<Conn, Requests>,
    folder: Folder,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The folder of a job on a node: many daemons of one job may share a machine.
fn folder(launch: &NodeLaunch, temporary: &Path) -> PathBuf {
    let job: String = launch.job.0[..8].iter().map(|b| format!("{b:02x}")).collect();
    temporary.join(format!("rmpirun.{job}.{}", launch.node))
}

impl Worker {
    /// Opens the listener with the first namespace that PMIx is offered to; the servers must not yet know it.
    ///
    /// # Errors
    /// What the kernel says of the listener.
    pub(super) fn open_door(&mut self, launch: &NodeLaunch) -> io::Result<()> {
        if !launch.mpi.pmi.pmix() || self.door.is_some() {
            return Ok(());
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let inputs = self.events.clone();
        let accepting =
            spawn_local(accept(listener, move |stream| drop(inputs.send(Input::Accepted(stream)))));
        let path = folder(launch, self.temporary());
        let setup = Setup {
            node: launch.node.0,
            uid: nix::unistd::geteuid().as_raw(),
            folder: path.to_string_lossy().into_owned(),
            oversubscribed: launch.oversubscribed,
            topology: Drawing::new(self.topology.clone()),
        };
        self.serving.servers.offer_pmix(PmixServer::new(setup));
        self.door = Some(Door {
            port,
            accepting: accepting.abort_handle(),
            streams: HashMap::new(),
            folder: Folder { path, made: false },
        });
        Ok(())
    }

    /// Somebody dialled in.
    pub(super) fn dialled_in(&mut self, stream: TcpStream) {
        let ends = stream.peer_addr().and_then(|peer| Ok((peer, stream.local_addr()?)));
        let uid = ends.ok().and_then(|(peer, ours)| peer::user(peer, ours));
        let _ = stream.set_nodelay(true);
        let inputs = self.events.clone();
        let conn = self.serving.fresh();
        let Some(door) = self.door.as_mut().filter(|d| d.streams.len() < MAX_STREAMS) else { return };
        let served = Requests::serve_raw(stream, move |heard| {
            let _ = inputs.send(match heard {
                Heard::Bytes(bytes) => Input::Heard(conn, bytes.into()),
                Heard::Request(..) | Heard::Gone(_) => Input::HungUp(conn),
            });
        });
        door.streams.insert(conn, served);
        self.tell_servers(Event::Accepted { conn, uid });
        self.drain();
    }

    /// Words of one who dialled in.
    pub(super) fn dialled_heard(&mut self, conn: Conn, bytes: bytes::Bytes) {
        if self.ported.as_ref().is_some_and(|p| p.has(conn)) {
            return self.pmi_port_heard(conn, bytes);
        }
        self.tell_servers(Event::Bytes { conn, bytes });
        self.drain();
    }

    /// One who dialled in has hung up.
    pub(super) fn dialled_end(&mut self, conn: Conn) {
        if let Some(who) = self.ported.as_mut().and_then(|p| p.gone(conn)) {
            match who {
                Some(proc) => self.pmi_eof(proc),
                None => self.tell_servers(Event::Eof { conn }),
            }
            self.release(false);
            self.drain();
        }
        if self.door.as_mut().is_some_and(|d| d.streams.remove(&conn).is_some()) {
            self.tell_servers(Event::Eof { conn });
            self.drain();
        }
    }
}

impl Door {
    /// Sends bytes to one who dialled in.
    pub(super) fn send(&self, conn: Conn, bytes: bytes::Bytes) {
        if let Some(stream) = self.streams.get(&conn) {
            stream.send(bytes.into());
        }
    }

    /// Closes a stream when what was sent has left; whether it was one of these.
    pub(super) fn close(&mut self, conn: Conn) -> bool {
        self.streams.remove(&conn).map(Requests::finish).is_some()
    }

    /// Makes a directory for clients, this user's alone.
    pub(super) fn make(&mut self, path: &Path) -> io::Result<()> {
        if !path.starts_with(&self.folder.path) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if !self.folder.made {
            // Somebody else's folder of this name is no place of ours.
            DirBuilder::new().mode(0o700).create(&self.folder.path)?;
            self.folder.made = true;
        }
        DirBuilder::new().mode(0o700).recursive(true).create(path)
    }
}

/// Takes in who dials, for as long as the kernel has room for more.
pub(super) async fn accept(listener: tokio::net::TcpListener, taken: impl Fn(TcpStream)) {
    let spare = || fs::File::open("/dev/null");
    // Given up for a moment when no descriptor is left: who dials then is turned away at once and not left waiting.
    let mut kept = spare();
    loop {
        let error = match listener.accept().await {
            Ok((stream, _)) => {
                taken(stream);
                continue;
            }
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) if kept.is_ok() => {
                tracing::warn!(%error, "a client is turned away");
                drop(kept);
                drop(listener.accept().await);
                kept = spare();
            }
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                tracing::error!(%error, "no more clients are let in");
                return;
            }
            // A dialler that left again.
            _ => tracing::debug!(%error, "listener for clients"),
        }
    }
}

/// Removes what a rank registered for removal. Links are removed, not followed.
pub(super) fn remove(path: &Path, recursive: bool) {
    let Ok(found) = fs::symlink_metadata(path) else { return };
    let removed = match (found.is_dir(), recursive) {
        (false, _) => fs::remove_file(path),
        (true, true) => fs::remove_dir_all(path),
        (true, false) => fs::remove_dir(path),
    };
    if let Err(error) = removed {
        tracing::debug!(%error, path = %path.display(), "not removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ranks_leave_is_removed() {
        let base = std::env::temp_dir().join(format!("rmpi-dialled-{}", std::process::id()));
        fs::create_dir_all(base.join("kept/inside")).unwrap();
        std::os::unix::fs::symlink(base.join("kept"), base.join("link")).unwrap();
        fs::write(base.join("file"), b"x").unwrap();
        fs::create_dir_all(base.join("deep/er")).unwrap();
        remove(&base.join("link"), true);
        remove(&base.join("file"), false);
        remove(&base.join("deep"), false);
        assert!(base.join("deep/er").exists(), "not with what is in it, unless asked to");
        remove(&base.join("deep"), true);
        remove(&base.join("nothing"), true);
        let left: Vec<_> = fs::read_dir(&base).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
        assert!(base.join("kept/inside").exists());
        drop(Folder { path: base.clone(), made: true });
        assert!(!base.exists());
    }
}
