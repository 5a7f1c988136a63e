//! From an image, an archive or a registry: digests that lie, and sizes that grow.
