//! Where identities come from: RADIUS accounting, captive portals, and files of fixed sessions.

mod odd_fields;
pub mod portal;
pub mod radius;
pub mod secrets;
pub mod sessions_file;
