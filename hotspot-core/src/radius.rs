//! RADIUS accounting (RFC 2866): a strict parser, the authenticators, and what a request says about a session.
//!
//! No input or output. A packet that is not exactly as long as it says, whose authenticators do not fit the secret, or whose
//! attributes do not fill it is refused with the reason. Attributes that are unknown, empty or of the wrong size are as if they
//! were not there; of one that may be there once the first counts.

mod attributes;
mod clock;
mod fact;
mod packet;
mod station;

pub use attributes::Attributes;
pub use clock::NasClock;
pub use packet::{AcctStatus, Demand, Exchange, Packet, Refused, Request, parse, sign};
