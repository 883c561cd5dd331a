//! Where identities come from: RADIUS accounting, and files of fixed sessions.

pub mod radius;
pub mod secrets;
pub mod sessions_file;
