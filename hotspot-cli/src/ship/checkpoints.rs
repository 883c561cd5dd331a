//! Checkpoints and their time stamps, as they lie beside the chain. They prove nothing there, and are what witnesses and verifications begin with.

use std::collections::BTreeSet;
use std::io;

use hotspot_archive::checkpoints::{BYTES_MAX, DIRECTORY, path};
use hotspot_archive::stamp;

use super::beside::{put_and_compare, read_if_there};
use super::pass::Pass;
use super::{ShipError, about};
use hotspot_archive::regular;

impl Pass<'_> {
    /// Puts the gateway's checkpoints, once there is a new one, and the stamps that are not there yet. A stamp is never taken away there.
    pub(super) async fn ship_checkpoints(&mut self) -> Result<(), ShipError> {
        let path = path(self.gateway);
        let here = self.archive.join(&path);
        let bytes = match regular::read(self.archive, &path, BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            bytes => bytes.map_err(about(&here))?,
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        put_and_compare(self.to, &path, bytes).await?;
        let there: BTreeSet<String> = self.to.list(DIRECTORY).await?.into_iter().map(|(path, _)| path).collect();
        for kept in text.lines().filter_map(hotspot_archive::chain::parse_checkpoint) {
            let path = stamp::path(self.gateway, kept.checkpoint.line);
            if there.contains(&path) {
                continue;
            }
            if let Some(bytes) = read_if_there(self.archive, &path)? {
                put_and_compare(self.to, &path, bytes).await?;
            }
        }
        Ok(())
    }
}
