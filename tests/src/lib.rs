//! End-to-end tests, each a story: the true `biremed`, the true `docker` command line, Compose, browsers and databases.
//! They stand under `tests/`, by subject; what they share is `bireme-testing`.

pub mod archive;
pub mod tree;
