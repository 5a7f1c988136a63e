//! The HTTP trigger: one fresh instance per request, straight on the accepted sockets.
//!
//! ```text
//!  listen (connections) -> plain_request -> route (whose request it is; spin_headers)
//!                                              -> invoke (the instance; spin1, wagi) -> response_body
//! ```

mod answer;
mod invoke;
mod listen;
mod plain_request;
mod response_body;
mod route;
mod site;
mod spin1;
mod spin_headers;
mod wagi;

pub(crate) use listen::listen;
pub(crate) use site::{Site, SiteAddress, Sites, share_a_place};
