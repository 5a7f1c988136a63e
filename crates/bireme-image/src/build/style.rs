//! In which of two ways a build is told.

/// How a build tells what it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BuildStyle {
    /// As Docker's classic builder: text, one instruction after the other.
    #[default]
    Classic,
    /// As BuildKit: steps, as many at once as there are.
    Steps,
}
