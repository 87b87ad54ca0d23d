//! What a program may choose at its start: the transport between ranks, and a thread that makes progress.

use rmpi_types::Transport;

/// Choices of a program for [`crate::World::init_with`]. All ranks must choose alike.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub(crate) transport: Transport,
    pub(crate) progress_thread: bool,
}

impl Options {
    /// Everything as the launcher and the library choose.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How ranks talk to each other; what is asked for here wins over what the launcher was told.
    #[must_use]
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Whether a thread makes progress while the program computes: non-blocking operations then go on between calls, at
    /// the price of a core's time and of calls that find the engine in use. `RMPI_PROGRESS_THREAD=1` asks for it, too.
    /// Not all ranks need to choose alike.
    #[must_use]
    pub fn progress_thread(mut self, wanted: bool) -> Self {
        self.progress_thread = wanted;
        self
    }
}
