//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use hotspot_archive::retention::Policy;

use crate::capture::HookChoice;
use crate::identity::portal::PortalAddress;
use crate::upkeep::CheckpointTarget;

/// Records who used a public Wi-Fi gateway: device, addresses, translation, time and person of every flow. Never payload.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Captures on the client-facing interfaces until SIGTERM, and writes the archive.
    ///
    /// Example, as root on a gateway whose clients are behind br-lan:
    ///
    ///   hotspot-agent run --interface br-lan --data-dir /var/lib/hotspot --site cafe-1 --gateway gw1 \
    ///       --radius-listen 0.0.0.0:1813 --radius-secret-file /etc/hotspot/radius.secret
    #[command(verbatim_doc_comment)]
    Run(Box<RunArguments>),
}

#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct RunArguments {
    /// Client-facing interface, or a pattern for those there are and those to come ('wlan*'). May be given several times
    #[arg(long = "interface", required = true, value_name = "NAME")]
    pub interfaces: Vec<String>,
    /// Where journal, keys and archive lie; made if missing
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Name of the venue, in every record (letters, digits, '-', '_', '.')
    #[arg(long)]
    pub site: String,
    /// Name of this gateway, unique among the provider's
    #[arg(long)]
    pub gateway: String,
    /// Seconds per segment of the archive
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86_400), value_name = "SECONDS")]
    pub rotate: u32,
    /// Seconds a closed journal waits for late identities before it is sealed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=3600), value_name = "SECONDS")]
    pub grace: u32,
    /// Seconds between two readings of the kernel's flow cache
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60), value_name = "SECONDS")]
    pub generation: u32,
    /// How to attach; auto decides per interface and says why
    #[arg(long, value_enum, default_value_t = HookChoice::Auto)]
    pub hook: HookChoice,
    /// Network of clients; on a mirror port it decides which side is the client. May be given several times
    #[arg(long = "client-net", value_name = "CIDR")]
    pub client_nets: Vec<IpNet>,
    /// Look for the clients inside tunnels: VXLAN (ports 4789, 8472) and Ethernet in GRE, as access points bring them to a controller
    #[arg(long)]
    pub decapsulate: bool,
    /// Address for RADIUS accounting, usually port 1813. May be given several times, for IPv4 and IPv6 (0.0.0.0:1813, [::]:1813)
    #[arg(long, value_name = "ADDRESS:PORT", requires = "radius_secret_file")]
    pub radius_listen: Vec<SocketAddr>,
    /// File with the RADIUS secret, or lines of network and secret; readable by its owner only, and read again on SIGHUP
    #[arg(long, value_name = "FILE")]
    pub radius_secret_file: Option<PathBuf>,
    /// Refuse RADIUS accounting without Message-Authenticator; one that is there must fit in any case
    #[arg(long, requires = "radius_listen")]
    pub radius_require_message_authenticator: bool,
    /// Seconds between the interim updates that access points were told to send, where their requests do not say. A session about
    /// which nothing comes for twice that and a minute has timed out; without it, for a day
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=86_400), requires = "radius_listen", value_name = "SECONDS")]
    pub radius_interim_interval: Option<u32>,
    /// Where captive portals report logins: the path of a socket (/run/hotspot/portal.sock), or ADDRESS:PORT. May be given several
    /// times
    #[arg(long = "portal-listen", value_name = "PATH|ADDRESS:PORT")]
    pub portal_listen: Vec<PortalAddress>,
    /// File of `token SECRET` and `hmac SECRET` lines for portals that report over the network; readable by its owner only
    #[arg(long, value_name = "FILE")]
    pub portal_secret_file: Option<PathBuf>,
    /// File of fixed sessions, one JSON object per line
    #[arg(long, value_name = "FILE")]
    pub sessions: Option<PathBuf>,
    /// Table of the makers of devices, instead of the one built in (see docs/devices.md for how it is made and brought up to date)
    #[arg(long, value_name = "FILE")]
    pub vendor_table: Option<PathBuf>,
    /// Who may read the archive: a public key as `hotspot keys new` shows it. Given two times or more, so that one lost key
    /// loses nothing. Without it nothing is encrypted
    #[arg(long = "recipient", value_name = "age1…")]
    pub recipients: Vec<String>,
    /// Be content with one --recipient
    #[arg(long, requires = "recipients")]
    pub allow_one_recipient: bool,
    /// Where the keys of open journals and states lie, instead of keys/journal in the data directory: a directory in memory, such as
    /// /run/hotspot/keys, is empty after a power cut, so that whoever takes the disk reads nothing. What was not sealed then is kept for
    /// the recipients (docs/formats/encryption.md)
    #[arg(long, value_name = "DIR", requires = "recipients")]
    pub key_dir: Option<PathBuf>,
    #[command(flatten)]
    pub upkeep: UpkeepArguments,
    /// Do not watch address translation
    #[arg(long)]
    pub no_nat: bool,
    /// BPF file system for what outlives the agent
    #[arg(long, default_value = "/sys/fs/bpf", value_name = "DIR")]
    pub bpffs: PathBuf,
    /// Leave the programs attached at the end: counting goes on until the next start
    #[arg(long)]
    pub keep_attached: bool,
    /// Flows each CPU holds per generation without handing any over; rounded up to a power of two, 160 bytes each
    #[arg(long, default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(16..=16_777_216), value_name = "COUNT")]
    pub flow_slots: u32,
    /// Bytes of each CPU's ring for new and handed-over flows; rounded up to a power of two
    #[arg(long, default_value_t = 8 << 20, value_parser = clap::value_parser!(u32).range(4096..=16 << 20), value_name = "BYTES")]
    pub ring_bytes: u32,
    /// Bytes of disk that the flows of one client may take in any hour, 64 of each in each segment, in bytes or with K, M, G, T. Further ones are in
    /// its totals only, without peers and ports, which log and answers say. 0: no limit
    #[arg(long, default_value = "64M", value_name = "BYTES", value_parser = parse_bytes)]
    pub client_detail: u64,
    /// The same of all clients of an interface; half of it is for those who were there ten minutes before. 0: no limit
    #[arg(long, default_value = "4G", value_name = "BYTES", value_parser = parse_bytes)]
    pub interface_detail: u64,
    /// error, warn, info, debug, trace, or a filter like `hotspot_agent=debug`
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// What happens to the archive beside sealing.
#[derive(Clone, Debug, Default, Args)]
pub struct UpkeepArguments {
    /// How long records are kept, per class: `flows=365d,sessions=730d`. Classes not named are kept for ever
    #[arg(long, value_name = "CLASS=DAYSd,…")]
    pub retain: Option<Policy>,
    /// Size of the archive from which on the log warns, in bytes or with K, M, G, T. Nothing is deleted for it
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub quota: Option<u64>,
    /// Where the head of the chain is reported after each segment, so that a cut end is noticed: `file:PATH`, `command:COMMAND`
    /// (by the shell, checkpoint on its standard input), `syslog:HOST:PORT` (UDP). May be given several times
    #[arg(long = "checkpoint", value_name = "WHERE")]
    pub checkpoints: Vec<CheckpointTarget>,
    /// Command that has a checkpoint stamped by a time-stamping authority: it reads the question on its standard input and writes the answer
    /// (RFC 3161, DER), as `curl -sS -H 'Content-Type: application/timestamp-query' --data-binary @- URL` does
    #[arg(long, value_name = "COMMAND")]
    pub checkpoint_tsa: Option<String>,
    /// Hours between two time stamps
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8760), value_name = "HOURS")]
    pub checkpoint_tsa_every: u32,
    /// Hours after which a new signing key takes over; the old one is destroyed. 0: never
    #[arg(long, default_value_t = 24, value_name = "HOURS")]
    pub signing_epoch: u32,
}

/// Bytes, with a unit of 1024 if one is given.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        unit => return Err(format!("{unit:?} is no unit; K, M, G or T")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no size, such as 500G"))?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is too much".to_owned())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}
