//! Networks of the engine.
pub mod addresses;
pub mod spec;
pub use spec::*;
