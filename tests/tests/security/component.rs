//! From a component: the second fence, and what a guest may ask of the host.
