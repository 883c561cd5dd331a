//! What identities cost, and how fast they are: one file per part, one set of figures.

mod radius;

use std::path::Path;

use serde::Serialize;

use crate::write_json;

#[derive(Serialize)]
struct Figures {
    #[serde(flatten)]
    radius: radius::Figures,
    /// The most memory an agent had in any part.
    rss_max_mib: u64,
}

/// Measures each part, prints its table, and writes the file.
pub(crate) fn run(json: Option<&Path>, radius_rate: u32, seconds: u32) -> anyhow::Result<()> {
    let (radius, cost) = radius::measure(radius_rate, seconds)?;
    write_json(json, &Figures { radius, rss_max_mib: cost.rss_max_mib })
}
