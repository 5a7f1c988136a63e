//! HTTP components: answers, limits, routes, streams, logs, and life beside a daemon that comes and goes.

mod answers;
mod bodies;
mod clients;
mod life;
mod output;
mod requests;
