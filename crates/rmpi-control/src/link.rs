//! One link between neighbours.

/// A link of one machine, as its driver numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// What carries a link, and so what its end of file means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A pipe, socket pair, agent or SSH channel: end of file is loss.
    Pipe,
    /// A stream that the daemon dialled: end of file is only suspect, it dials again and both sides resume.
    Dialled,
}
