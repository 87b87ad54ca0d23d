//! The control stream's tasks, and a launcher that is dialled: at first, and again after a stream broke.

use super::serve::Input;
use super::{ORPHAN_LIMIT, run};
use crate::dialling::{self, Dialling};
use crate::joined::Joined;
use crate::node::Survey;
use crate::uplink::{self, Carrier, Queue};
use crate::{family, node};
use rmpi_control::DaemonEvent;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

/// Dials the launcher and serves it to the end; the exit code. Standard output and error are given up once the
/// launcher was reached: whoever started us may be gone.
pub(crate) fn dialled(dialling: &Dialling, guard: OwnedFd) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.and_then(|runtime| {
        LocalSet::new().block_on(&runtime, async {
            dialling.tell_key();
            let (input, output) = tokio::io::split(dialling.first().await?);
            dialling::silence()?;
            let files = node::raise_files();
            let done =
                run(Carrier::Stream(input, output), guard, files, Survey::WHOLE, Some(dialling.clone()))
                    .await;
            family::end_all(ORPHAN_LIMIT, |_| {});
            done
        })
    });
    match done {
        Ok(()) => 0,
        Err(error) => {
            crate::complain(&error);
            rmpi_types::exit::INTERNAL
        }
    }
}

/// The tasks of one control stream.
pub(super) struct UpTasks {
    pub(super) number: u32,
    tasks: Vec<JoinHandle<()>>,
    open: bool,
}

impl UpTasks {
    /// Reads and writes the stream of this number until it ends, which is told once or twice.
    pub(super) fn start(
        number: u32,
        carrier: Carrier<impl AsyncRead + Unpin + 'static, impl AsyncWrite + Unpin + 'static>,
        up: &Rc<Queue>,
        events: &mpsc::UnboundedSender<Input>,
    ) -> Self {
        let tell = events.clone();
        let tasks = match carrier {
            Carrier::Memory(joined) => {
                let Joined { to, mut from } = joined;
                up.join(to);
                vec![spawn_local(async move {
                    while let Some(frame) = from.recv().await {
                        let _ = tell.send(DaemonEvent::FromUp(frame).into());
                    }
                    let _ = tell.send(Input::UpEnded(number));
                })]
            }
            Carrier::Stream(input, output) => {
                let queue = Rc::clone(up);
                let writing = spawn_local(async move {
                    // Only a closed stream ends this; the reading side tells of it too, but perhaps much later.
                    let error = queue.write(output).await;
                    tracing::info!(%error, "control stream cannot be written");
                    let _ = tell.send(Input::UpEnded(number));
                });
                let events = events.clone();
                let reading = spawn_local(async move {
                    let give = |f| drop(events.send(DaemonEvent::FromUp(f).into()));
                    let ended = uplink::read_frames(input, give).await;
                    tracing::info!(?ended, "control stream ended");
                    let _ = events.send(Input::UpEnded(number));
                });
                vec![writing, reading]
            }
        };
        Self { number, tasks, open: true }
    }

    /// Whether the end of the stream of this number is news.
    pub(super) fn ended(&mut self, number: u32, up: &Queue) -> bool {
        let news = self.open && number == self.number;
        if news {
            self.open = false;
            self.tasks.iter().for_each(JoinHandle::abort);
            up.cut();
        }
        news
    }
}

/// Dials until a launcher greets.
pub(super) async fn redial(dialling: Dialling, events: mpsc::UnboundedSender<Input>) {
    loop {
        let mut stream = dialling.again().await;
        let greeted = async {
            uplink::say_hello(&mut stream).await?;
            uplink::hear_hello(&mut stream).await
        };
        match greeted.await {
            Ok(()) => return drop(events.send(Input::Redialled(Box::new(stream)))),
            Err(error) => tracing::debug!(%error, "the launcher does not greet"),
        }
    }
}
