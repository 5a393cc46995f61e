//! Layer 5: the life of a request.

pub mod access_log;
pub mod answer;
mod begun;
pub mod endpoints;
pub mod exchange;
pub mod leash;
mod outcome;
pub mod record;
pub mod request_id;
pub mod respond;
mod session_cookie;
pub mod set_cookie;
pub mod state;
mod times;
pub mod tunnel;
pub mod unparsed;

pub use exchange::exchange;
pub use state::{State, Worker};
pub use unparsed::unparsed;
