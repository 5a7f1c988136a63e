//! From a local account, and from a lost or broken database: what is stored is closed to others and kept.
