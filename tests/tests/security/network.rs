//! From a container's network: spoofed frames, the host's loopback, names of others.
