//! What a program may choose at its start: the transport between ranks.

use rmpi_types::Transport;

/// Choices of a program for [`crate::World::init_with`]. All ranks must choose alike.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub(crate) transport: Transport,
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
}
