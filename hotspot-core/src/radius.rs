//! RADIUS accounting (RFC 2866): a strict parser, the authenticators, and what a request says about a session.
//!
//! No input or output. A packet that is not as long as it says or whose authenticators do not fit the secret is refused with the
//! reason. An attribute that does not keep to its format costs itself: it is as if it were not there, and named in
//! [`Attributes::odd`]. Attributes that are unknown or empty are as if they were not there; of one that may be there once the first counts.

mod attributes;
mod clock;
mod fact;
mod packet;
pub mod station;

pub use attributes::Attributes;
pub use clock::NasClock;
pub use packet::{AcctStatus, Demand, Exchange, Packet, Refused, Request, parse, sign};
