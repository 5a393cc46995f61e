//! HTTP/1.1 as a client speaks it (RFC 9112): a request goes out on a connection, the
//! head of its answer comes back, and then its content.
//!
//! A [`Connection`] is driven by whoever waits for something of it; it has no task of its
//! own. `outgoing` writes requests, `head` reads the heads of answers, `content`
//! finds out where their content ends, and an [`Inbound`] is that content on its way.

mod connection;
mod content;
mod head;
mod inbound;
mod outgoing;
mod raw;

pub use connection::{Connection, Error};
pub use inbound::Inbound;
pub use raw::{Pipe, Raw};

#[cfg(test)]
mod tests;
