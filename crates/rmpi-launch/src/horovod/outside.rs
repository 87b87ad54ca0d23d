//! What an elastic job asks and tells: the host discovery script, and the service of rank 0's worker that takes notices.

use rmpi_horovod::notice::{self, Change};
use rmpi_horovod::pickle::Registration;
use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How often the script is asked.
const PERIOD: Duration = Duration::from_secs(1);
/// How long it may take.
const SCRIPT: Duration = Duration::from_secs(30);

/// Asks the script for ever, a call after the other, until nobody wants to be told.
pub(super) async fn discover(script: OsString, told: impl Fn(Result<Vec<u8>, String>) -> bool) {
    loop {
        let next = tokio::time::Instant::now() + PERIOD;
        let name = script.to_string_lossy().into_owned();
        let mut command = tokio::process::Command::new("/bin/sh");
        command.arg("-c").arg(&script).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = tokio::time::timeout(SCRIPT, command.kill_on_drop(true).output()).await;
        let result = match output {
            Err(_) => {
                Err(format!("host discovery script {name}: it did not end within {} s", SCRIPT.as_secs()))
            }
            Ok(Err(e)) => Err(format!("host discovery script {name}: {e}")),
            Ok(Ok(output)) if output.status.success() => Ok(output.stdout),
            Ok(Ok(output)) => {
                let words = String::from_utf8_lossy(&output.stderr);
                let last = words.lines().rfind(|l| !l.trim().is_empty()).unwrap_or_default().to_owned();
                Err(format!("host discovery script {name}: it failed ({}) {last}", output.status))
            }
        };
        if !told(result) {
            return;
        }
        tokio::time::sleep_until(next).await;
    }
}

/// Tells a worker's service; tries its addresses one after the other.
pub(super) async fn notify(service: &Registration, time: i32, change: Change) -> io::Result<()> {
    let message = notice::message(&service.key, time, change);
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in &service.addresses {
        let told = async {
            let mut tcp = TcpStream::connect(address).await?;
            tcp.write_all(&message).await?;
            let mut head = [0; notice::HEAD];
            tcp.read_exact(&mut head).await?;
            let length = notice::answer_length(&head).ok_or(io::ErrorKind::InvalidData)?;
            let mut body = vec![0; length];
            tcp.read_exact(&mut body).await?;
            match notice::acknowledged(&service.key, &head, &body) {
                true => Ok(()),
                false => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
            }
        };
        match told.await {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}
