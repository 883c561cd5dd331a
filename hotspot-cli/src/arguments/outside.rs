//! Arguments of what has to do with time from outside: `checkpoint`, `witness`, `stamp`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ARCHIVE;

const WATCHED: &str = "Archive to watch: a directory, or s3://BUCKET/PREFIX. May be given several times";

#[derive(Debug, Args)]
pub(crate) struct CheckpointArguments {
    #[arg(long, value_name = "DIR|URL", help = ARCHIVE)]
    pub(crate) archive: PathBuf,
    /// Whose chain
    #[arg(long, value_name = "NAME")]
    pub(crate) gateway: String,
    /// Lines that the witness signed for last; 0 for none yet. A witness that knows better says so
    #[arg(long, default_value_t = 0, value_name = "LINES")]
    pub(crate) old: u64,
    /// Public key of the gateway's first epoch, got by another way than with the archive
    #[arg(long, value_name = "FILE")]
    pub(crate) public_key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WitnessCommand {
    /// Makes a witness's key in a new file, and prints its public half, which `hotspot verify --witness` is given
    NewKey(WitnessKeyArguments),
    /// Lets the witness sign for a gateway's chain, or for an audit log
    Trust(WitnessTrustArguments),
    /// Reads a request (`hotspot checkpoint`) on standard input, and prints the cosignature line.
    ///
    /// Exit codes: 0 signed · 1 the request goes on from another size: the right one is printed · 2 no request · 3 another tree than before: keep the
    /// request, it is evidence · 4 an unknown gateway, or not signed by the key in use
    #[command(verbatim_doc_comment)]
    Sign(WitnessSignArguments),
    /// Reads shipped archives and audit logs itself, and adds what it signed to a file
    Watch(WitnessWatchArguments),
}

#[derive(Debug, Args)]
pub(crate) struct WitnessKeyArguments {
    /// The file to make; it stays on the witness
    pub(crate) file: PathBuf,
    /// Name of the witness, without spaces and '+'; hotspot-witness/<name of this machine> without it
    #[arg(long)]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct WitnessTrustArguments {
    /// Where the witness remembers; made if missing
    #[arg(long, value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// The gateway's name
    #[arg(required_unless_present = "audit_log", requires = "public_key")]
    pub(crate) gateway: Option<String>,
    /// Public key of its first epoch: 64 hexadecimal digits, or a file that holds them (manifest/<gateway>.pub)
    pub(crate) public_key: Option<String>,
    /// Or the name of an audit log that is to be watched
    #[arg(long, value_name = "NAME", conflicts_with = "gateway")]
    pub(crate) audit_log: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct WitnessSignArguments {
    /// Where the witness remembers
    #[arg(long, value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// The witness's key
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct WitnessWatchArguments {
    #[command(flatten)]
    pub(crate) sign: WitnessSignArguments,
    #[arg(long = "archive", value_name = "DIR|URL", required_unless_present = "audit", help = WATCHED)]
    pub(crate) archives: Vec<PathBuf>,
    /// Audit log to watch, and the name it is known by. May be given several times
    #[arg(long, value_name = "NAME=FILE", value_parser = named_file)]
    pub(crate) audit: Vec<(String, PathBuf)>,
    /// Go on, looking every so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) every: Option<u32>,
    /// File to add the cosigned checkpoints to
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct StampArguments {
    /// Archive whose newest checkpoints are to be stamped
    #[arg(long, value_name = "DIR", required_unless_present = "checkpoint")]
    pub(crate) archive: Option<PathBuf>,
    /// File of checkpoints that were kept elsewhere, the newest of which are to be stamped; the stamps go beside it
    #[arg(long, value_name = "FILE", conflicts_with = "archive")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// The authority's address, http or https
    #[arg(long, value_name = "URL", required_unless_present = "tsa_command")]
    pub(crate) tsa: Option<String>,
    /// A command that reads the question (RFC 3161, DER) and writes the authority's answer
    #[arg(long, value_name = "COMMAND", conflicts_with = "tsa")]
    pub(crate) tsa_command: Option<String>,
    /// Keep only a stamp that leads to one of these certificates (PEM). May be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) tsa_ca: Vec<PathBuf>,
}

/// `NAME=FILE`.
fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("write NAME=FILE")?;
    let is_name = hotspot_archive::layout::is_name(name);
    if is_name {
        Ok((name.to_owned(), file.into()))
    } else {
        Err(format!("{name:?} is no name (letters, digits, '-', '_', '.')"))
    }
}

/// `[NAME=]FILE`.
#[expect(clippy::unnecessary_wraps, reason = "clap's parsers may fail")]
pub(super) fn audit_log(text: &str) -> Result<hotspot_archive::verify::AuditLog, String> {
    let named = named_file(text).ok();
    let (name, path) = named.map_or_else(|| (None, text.into()), |(name, path)| (Some(name), path));
    Ok(hotspot_archive::verify::AuditLog { name, path })
}

/// A length of time: 90m, 2h, 3d.
pub(super) fn duration_ns(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is no length of time, such as 90m, 2h or 3d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(bad)?;
    let seconds: i64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    let number: u32 = number.parse().map_err(|_| bad())?;
    i64::from(number).checked_mul(seconds * 1_000_000_000).ok_or_else(bad)
}
