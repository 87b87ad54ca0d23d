//! The dialogue on real streams. Reads one byte at a time until the daemon is ready: a handful of short lines,
//! and not a byte of what follows them is taken.

use super::{DaemonImage, Dialogue, Ending, ImageSource, Step};
use rmpi_types::LaunchFault;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes of the daemon handed to the stream at once.
const CHUNK: usize = 64 << 10;

/// What the daemon was recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its name and owner: if it does not greet as expected, [`super::Look::Close`] may help.
    ByName,
    /// Its content, or the path the user gave.
    Checked,
}

/// Talks with the script of [`super::remote_command`] until the daemon runs. Afterwards both streams are the
/// daemon's, from its first byte on.
///
/// # Errors
/// Stage `shell` when the login shell does not run the script, `daemon` when the script cannot start the
/// daemon. On an error the streams are in no particular state.
pub async fn start_daemon(
    stdin: &mut (impl AsyncWrite + Unpin),
    stdout: &mut (impl AsyncRead + Unpin),
    image: &DaemonImage,
    deadline: Instant,
) -> Result<Found, LaunchFault> {
    let limit = deadline.saturating_duration_since(Instant::now());
    let mut dialogue = Dialogue::new(image);
    let talked = tokio::time::timeout_at(deadline.into(), talk(stdin, stdout, image, &mut dialogue)).await;
    talked.unwrap_or_else(|_| Err(dialogue.end(Ending::Late(limit))))?;
    Ok(if dialogue.at_once() { Found::ByName } else { Found::Checked })
}

async fn talk(
    stdin: &mut (impl AsyncWrite + Unpin),
    stdout: &mut (impl AsyncRead + Unpin),
    image: &DaemonImage,
    dialogue: &mut Dialogue,
) -> Result<(), LaunchFault> {
    loop {
        match next(stdout, dialogue).await? {
            Step::Read => {}
            Step::Ready => return Ok(()),
            Step::Failed(fault) => return Err(fault),
            Step::Push if push(stdin, stdout, image, dialogue).await? => return Ok(()),
            Step::Push => {}
        }
    }
}

/// One byte's step. Cancel safe.
async fn next(stdout: &mut (impl AsyncRead + Unpin), dialogue: &mut Dialogue) -> Result<Step, LaunchFault> {
    let mut byte = [0];
    match stdout.read(&mut byte).await {
        Ok(1..) => Ok(dialogue.byte(byte[0])),
        Ok(0) | Err(_) => Err(dialogue.end(Ending::Closed)),
    }
}

/// Sends the daemon while listening: a host that cannot take it says so and reads no further. True when the
/// daemon has started already.
async fn push(
    stdin: &mut (impl AsyncWrite + Unpin),
    stdout: &mut (impl AsyncRead + Unpin),
    image: &DaemonImage,
    dialogue: &mut Dialogue,
) -> Result<bool, LaunchFault> {
    let ImageSource::Pushed { bytes, .. } = &image.source else { return Ok(false) };
    let sending = async {
        for chunk in bytes.chunks(CHUNK) {
            stdin.write_all(chunk).await?;
        }
        stdin.flush().await
    };
    tokio::pin!(sending);
    loop {
        tokio::select! {
            // A broken pipe has its reason in what the host printed: read on for it.
            _ = &mut sending => return Ok(false),
            step = next(stdout, dialogue) => match step? {
                Step::Failed(fault) => return Err(fault),
                // The last bytes may have arrived before we were told that they were sent.
                Step::Ready => return Ok(true),
                Step::Read | Step::Push => {}
            },
        }
    }
}
