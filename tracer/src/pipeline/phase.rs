//! How far a run has come.

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The programs are being attached, and the containers that run already are being found: nothing is shown yet.
    Starting,
    /// Events are traced and shown.
    Running,
    /// No program runs any more: what is in the rings is all there will be.
    Detached,
}
