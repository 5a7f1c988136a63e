//! From inside a container: the kernel's doors, and paths that lead out.
