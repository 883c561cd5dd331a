//! RADIUS accounting (RFC 2866): a strict parser, the authenticators, and what a request says about a session.
//!
//! No input or output. A request that is not exactly as long as it says, or whose authenticator does not fit the secret, is
//! refused with the reason. Attributes that are unknown or malformed beside the point are ignored; those that are needed are
//! checked.

mod fact;
mod packet;

pub use packet::{AcctStatus, Attributes, Refused, Request, parse, response};
