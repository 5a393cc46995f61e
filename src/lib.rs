//! Cloakroom, a standalone authenticating reverse proxy.
//!
//! It stands in front of a web application, keeps the visitors' sessions for
//! it, and forwards each request with an identity header that the application
//! can trust.
//!
//! # The life of a request
//!
//! [`server`] accepts a connection and tells HTTP/2 from HTTP/1.1. For each
//! request, [`proxy::exchange()`] reads who asks ([`wire::client`]) and for what
//! ([`wire::target`]), finds the route ([`policy::table`]), looks the session
//! up if the route needs one ([`session::sessions`]), and lets
//! [`policy::decide()`] decide from these facts alone. Only that decision makes a
//! [`policy::Permit`], and only a permit can be forwarded ([`upstream`]), with
//! identity written last. Everything else is an answer of our own: an endpoint
//! ([`proxy::endpoints`]), a redirect to the login page, or a refusal
//! ([`base::refusal`]). When the response's body ends, the request is recorded
//! ([`proxy::record`]).
//!
//! # Layers
//!
//! A file imports from lower layers or its own folder; layers with one number
//! do not see each other. `tests/suite/layers.rs` guards this.
//!
//! | layer | folder | what is in it |
//! |---|---|---|
//! | 0 | [`base`] | refusals, time, secrets, metrics |
//! | 1 | [`wire`] | HTTP rules without I/O |
//! | 2 | [`session`], [`login`] | sessions and their stores; ways to sign in |
//! | 3 | [`policy`] | routes and decisions |
//! | 4 | [`upstream`] | connections to applications |
//! | 5 | [`proxy`] | the path of a request, our own endpoints |
//! | 6 | [`server`] | listeners, connections, timers |
//! | 7 | [`config`], [`admin`] | the configuration file; health and metrics |
//! | 8 | [`app`], [`cli`] | the running process and the command line |
//!
//! # Lexicon
//!
//! *Downstream* is toward the client, *upstream* toward the application. A
//! *session* is a record in the store; the client holds its *token*, in the
//! signed session *cookie*. A *refusal* is any answer given instead of
//! forwarding; its reasons are one closed list.

pub mod admin;
pub mod app;
pub mod base;
pub mod cli;
pub mod config;
pub mod login;
pub mod policy;
pub mod proxy;
pub mod server;
pub mod session;
pub mod upstream;
pub mod wire;
