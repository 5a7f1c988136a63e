//! End-to-end and conformance tests; see the files under `tests/`.
