//! What identities cost, and how fast they are: one file per part, one set of figures.

mod join;
mod nat;
mod radius;

use std::path::Path;

use serde::Serialize;

use crate::write_json;

#[derive(Serialize)]
struct Figures {
    #[serde(flatten)]
    radius: radius::Figures,
    #[serde(flatten)]
    join: join::Figures,
    #[serde(flatten)]
    nat: nat::Figures,
    /// The most memory an agent had in any part.
    rss_max_mib: u64,
}

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// RADIUS requests per second.
    #[arg(long, default_value_t = 1000)]
    radius_rate: u32,
    /// New translations per second.
    #[arg(long, default_value_t = 20_000)]
    nat_rate: u32,
    /// How long requests and translations come; translations for no more than 10 s.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
}

/// Measures each part, prints its table, and writes the file.
pub(crate) fn run(json: Option<&Path>, options: &Options) -> anyhow::Result<()> {
    let (radius, radius_cost) = radius::measure(options.radius_rate, options.seconds)?;
    // Longer, and the kernel's table of connections would be full.
    let (nat, nat_cost) = nat::measure(options.nat_rate, options.seconds.min(10))?;
    // Last: what a process holds when it starts another counts as that one's memory too.
    let join = join::measure();
    let rss_max_mib = radius_cost.rss_max_mib.max(nat_cost.rss_max_mib);
    write_json(json, &Figures { radius, join, nat, rss_max_mib })
}
