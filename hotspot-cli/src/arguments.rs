//! The command line.

mod endpoint;
mod outside;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use hotspot_archive::search::By;
use hotspot_archive::verify::AuditLog;

pub(crate) use self::outside::{
    CheckpointArguments, StampArguments, WitnessCommand, WitnessKeyArguments, WitnessSignArguments,
    WitnessTrustArguments, WitnessWatchArguments,
};

/// Words of `--by`.
fn groups() -> clap::builder::PossibleValuesParser {
    By::ALL.iter().map(|by| by.word()).collect::<Vec<_>>().into()
}

/// A policy; none where nothing is said.
fn policy(text: &str) -> Result<hotspot_archive::policy::Policy, hotspot_archive::policy::BadPolicy> {
    if text.is_empty() { Ok(hotspot_archive::policy::Policy::default()) } else { text.parse() }
}

const TIMES: &str = "Times are RFC 3339 with a zone (2026-11-23T10:02:03+07:00, 2026-11-23T03:02:03Z) or seconds since 1970 (@1795402923); \
without a zone they need --tz (2026-11-23T10:02:03 --tz Asia/Ho_Chi_Minh). A moment is as long as its last digit counts: 10:02:03 is a \
second, 10:02 a minute, T10 an hour, a date alone a day.

Exit codes: 0 found or done; 1 nothing found, and everything searched was recorded; 2 usage, or not an address of these gateways; \
3 not everything was recorded or could be read, or the answer could not be written; 4 refused. verify has more.";

const ARCHIVE: &str = "The archive: a directory, or s3://BUCKET/PREFIX (docs/scale.md)";
const TARGET: &str = "Where to: s3://BUCKET/PREFIX, or a directory that is there. Many gateways may share one";
const SHIP: &str = "Copies sealed segments and their chain elsewhere, and proves that they are there.

  hotspot ship --archive /var/lib/hotspot/archive --to s3://records/wifi --every 60
  hotspot ship --archive /var/lib/hotspot/archive --to /mnt/archive --keep-here 30

Every file is read back and compared with its signed line before the line goes. A run that was cut short is taken up by the next. Nothing \
is removed here without --keep-here, and then only what was read back there in the same run.

AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and, for a server other than Amazon's, AWS_ENDPOINT=https://HOST:PORT say who and \
where; AWS_ALLOW_HTTP=true allows a server without TLS. docs/scale.md has the rest.";

/// Searches, explains and verifies archives of hotspot-agent.
#[derive(Debug, Parser)]
#[command(version, about, after_help = TIMES)]
pub(crate) struct Arguments {
    /// Read the passphrases of identity files from this open descriptor, a line for each, instead of asking on the terminal
    #[arg(long, global = true, value_name = "NUMBER")]
    pub(crate) passphrase_fd: Option<u32>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists the flows that match a filter, or sums them.
    ///
    /// Filter words (docs/search.md has them all): user X · mac X · [src|dst] ip X · [src|dst] net CIDR · [src|dst] port N ·
    /// proto tcp|udp|icmp|icmp6|N · peer X · public ip X [port P] [at TIME] · vlan N · site X · gateway X · ssid X · hostname X · vendor X ·
    /// [src|dst] bytes > 1M · [src|dst] packets > 10 · duration > 5m · at TIME [within 2s] · X in [A, B] · `*` for anything ·
    /// and · or · not · ( ) · # comment. The client is the source.
    ///
    ///   hotspot find --archive /srv/archive --case 2026/117 user 0912345678
    ///   hotspot find --archive /srv/archive --from 2026-11-23T10:00:00+07:00 --to 2026-11-23T11:00:00+07:00 \
    ///       'dst net 198.51.100.0/24 and not port in [80, 443]'
    ///   hotspot find --archive /srv/archive --by user --top 20 --sort bytes 'dst port 443'
    ///
    /// Every search is written to the audit log before its first result.
    #[command(verbatim_doc_comment)]
    Find(FindArguments),
    /// Says who used a public address and port at a moment.
    ///
    ///   hotspot who --archive /srv/archive --public 203.0.113.7:45678 --at 2026-11-23T10:02:03+07:00
    ///   hotspot who --archive /srv/archive --public '[`2001:db8::14`]:40000' --at 2026-11-23T10:02:03+07:00
    #[command(verbatim_doc_comment)]
    Who(WhoArguments),
    /// Prints every record of a segment or journal.
    Decode(DecodeArguments),
    /// Proves that an archive is whole: every signature, every line, every file.
    ///
    ///   hotspot verify --archive /srv/archive --public-key fleet.pins --checkpoint /var/log/checkpoints --policy flows=365d
    ///
    /// Exit codes: 0 whole · 3 damaged · 5 files were moved and not looked at where they are (--moved-at) · 6 receipts say what is not so ·
    /// 7 the end of a chain was cut off · 8 nothing outside of an audit log vouches for it · 9 times need an explanation · 2 usage.
    #[command(verbatim_doc_comment)]
    Verify(VerifyArguments),
    /// Shows whether every packet is accounted for: the balance per interface.
    Coverage(CoverageArguments),
    /// Shows where a gateway's clock was set, and what is to be added to the times before.
    Clock(ClockArguments),
    /// Makes keys, shows who can read an archive, and lets others read it.
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Keeps segments from being deleted, for a case.
    Hold {
        #[command(subcommand)]
        command: HoldCommand,
    },
    /// Shows what retention would delete.
    Expire(ExpireArguments),
    /// Copies sealed segments and their chain elsewhere, and proves that they are there
    #[command(long_about = SHIP)]
    Ship(ShipArguments),
    /// Prints a request to a witness: the newest checkpoint of a chain, and the proof that it goes on from the one before
    Checkpoint(CheckpointArguments),
    /// Signs for chains that only grow: what a second machine of the provider does
    Witness {
        #[command(subcommand)]
        command: WitnessCommand,
    },
    /// Has a time-stamping authority (RFC 3161) stamp the newest checkpoints
    Stamp(StampArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ShipArguments {
    /// The archive's directory, as its gateway writes it
    #[arg(long, value_name = "DIR")]
    pub(crate) archive: PathBuf,
    #[arg(long, value_name = "URL|DIR", help = TARGET)]
    pub(crate) to: String,
    /// Go on, looking for what is new every so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) every: Option<u32>,
    /// Remove segments here that are older than so many days, after reading them back there once more; those on hold stay
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(0..=36_500))]
    pub(crate) keep_here: Option<u32>,
    /// Delete there what signed lines call deleted, but for what is on hold. Without it the store's own rules have to
    #[arg(long)]
    pub(crate) delete_expired: bool,
    /// Read everything back again, and send again what is damaged there or gone
    #[arg(long)]
    pub(crate) recheck: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ClockArguments {
    #[arg(long, value_name = "DIR|URL", help = ARCHIVE)]
    pub(crate) archive: PathBuf,
    #[command(flatten)]
    pub(crate) trusting: Trusting,
    /// Zone for the times that are shown, by its IANA name; UTC where none is given
    #[arg(long, value_name = "ZONE")]
    pub(crate) tz: Option<String>,
    /// One JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Makes an identity in a new file and prints its public key, which gateways are given with --recipient
    New(NewArguments),
    /// Shows for whom the segments of an archive are encrypted
    Show(ShowArguments),
    /// Lets more recipients read the segments there are; needs an identity that can
    Add(AddArguments),
    /// Like add, and takes away whoever was added before and is not named; those that gateways sealed for stay
    Rewrap(AddArguments),
    /// Prints a segment's key as 64 hexadecimal digits, for programs that read encrypted Parquet. Whoever sees it reads the segment
    Unwrap(UnwrapArguments),
}

#[derive(Debug, Args)]
pub(crate) struct NewArguments {
    /// Encrypt the file under a passphrase, as `age -p` does; it is asked for wherever the file is used
    #[arg(long)]
    pub(crate) passphrase: bool,
    /// The file to make; keep it, and a copy, away from the gateways
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// The archive's directory
    #[arg(long, value_name = "DIR")]
    pub(crate) archive: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct AddArguments {
    /// The archive's directory
    #[arg(long, value_name = "DIR")]
    pub(crate) archive: PathBuf,
    /// Identity that opens the archive. May be given several times
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) identity: Vec<PathBuf>,
    /// Public key to add. May be given several times
    #[arg(long = "recipient", value_name = "age1…", required = true)]
    pub(crate) recipients: Vec<String>,
    #[command(flatten)]
    pub(crate) asking: Asking,
}

#[derive(Debug, Args)]
pub(crate) struct UnwrapArguments {
    /// Identity that opens the segment. May be given several times
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) identity: Vec<PathBuf>,
    /// A segment (.parquet), with its sidecar (.parquet.age) beside it
    pub(crate) segment: PathBuf,
    #[command(flatten)]
    pub(crate) asking: Asking,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HoldCommand {
    /// Holds the segments that are named, or those with a flow that matches a filter.
    ///
    ///   hotspot hold add --archive /srv/archive --case C-2026-17 user 0912345678
    ///   hotspot hold add --archive /srv/archive --case C-2026-18 --segment gw1:4711
    #[command(verbatim_doc_comment)]
    Add(HoldArguments),
    /// Lists the holds
    List(ShowArguments),
    /// Lifts the hold of a case
    Lift(LiftArguments),
}

#[derive(Debug, Args)]
pub(crate) struct HoldArguments {
    /// The archive's directory, where retention deletes
    #[arg(long, value_name = "DIR")]
    pub(crate) archive: PathBuf,
    /// Names the hold; not encrypted (letters, digits, '-', '_', '.')
    #[arg(long)]
    pub(crate) case: String,
    /// Audit log to write to, instead of audit/queries.jsonl in the archive
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<PathBuf>,
    /// A segment to hold, GATEWAY:SEQUENCE. May be given several times
    #[arg(long = "segment", value_name = "GATEWAY:SEQUENCE", conflicts_with = "filter")]
    pub(crate) segments: Vec<String>,
    /// Identity that opens an encrypted archive. May be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) trusting: Trusting,
    /// Only flows at or after this time
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Only flows before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
    /// Time zone of times without one
    #[arg(long, value_name = "ZONE")]
    pub(crate) tz: Option<String>,
    /// What the flows must match; all without it
    #[arg(value_name = "FILTER", trailing_var_arg = true)]
    pub(crate) filter: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LiftArguments {
    /// The archive's directory
    #[arg(long, value_name = "DIR")]
    pub(crate) archive: PathBuf,
    #[arg(long)]
    pub(crate) case: String,
    /// Audit log to write to, instead of audit/queries.jsonl in the archive
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ExpireArguments {
    /// The archive's directory
    #[arg(long, value_name = "DIR")]
    pub(crate) archive: PathBuf,
    /// How long records are kept, as the agent is told
    #[arg(long, value_name = "CLASS=DAYSd,…")]
    pub(crate) retain: hotspot_archive::retention::Policy,
    /// Only show; the agent deletes
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct FindArguments {
    #[arg(long, value_name = "DIR|URL", help = ARCHIVE)]
    pub(crate) archive: PathBuf,
    /// Identity that opens an encrypted archive, as `hotspot keys new` made it. May be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) trusting: Trusting,
    #[command(flatten)]
    pub(crate) asking: Asking,
    /// Only flows at or after this time
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Only flows before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
    /// Time zone of times without one (of the filter too), of the table, and of the hours and days of --by
    #[arg(long, value_name = "ZONE")]
    pub(crate) tz: Option<String>,
    /// One JSON object per line, with the archive's column names; the last says what the answer is
    #[arg(long, conflicts_with_all = ["csv", "csv_for_excel", "parquet"])]
    pub(crate) json: bool,
    /// Comma-separated values with a header, true to the values. Not to be opened by a spreadsheet
    #[arg(long, conflicts_with_all = ["csv_for_excel", "parquet"])]
    pub(crate) csv: bool,
    /// The same for spreadsheets: no cell is run or changed, because an apostrophe marks all that is more than letters
    #[arg(long, conflicts_with = "parquet")]
    pub(crate) csv_for_excel: bool,
    /// Write the flows into this Parquet file, with the archive's columns
    #[arg(long, value_name = "FILE", conflicts_with_all = ["by", "output"])]
    pub(crate) parquet: Option<PathBuf>,
    /// Write the answer into this file; what it is goes beside it, into FILE.json
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Replace the files that --output and --parquet name, if they are there
    #[arg(long)]
    pub(crate) force: bool,
    /// Stop after this many flows
    #[arg(long, value_name = "COUNT")]
    pub(crate) limit: Option<usize>,
    /// Largest or latest first: the first --limit flows (1000 without it), or the groups of --by
    #[arg(long, value_enum, value_name = "BY")]
    pub(crate) sort: Option<Sort>,
    /// Sum flows, packets and bytes by a column instead of listing flows
    #[arg(long, value_name = "COLUMN", value_parser = groups())]
    pub(crate) by: Option<String>,
    /// Only so many groups of --by, the largest
    #[arg(long, value_name = "COUNT", requires = "by", conflicts_with = "limit")]
    pub(crate) top: Option<usize>,
    /// What to look for; all flows without it
    #[arg(value_name = "FILTER", trailing_var_arg = true)]
    pub(crate) filter: Vec<String>,
}

/// What the largest or latest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    Bytes,
    Packets,
    /// Flows by their number, only with --by
    Flows,
    Duration,
    Start,
    End,
}

/// Why a question is asked, and where that is written.
#[derive(Debug, Args)]
pub(crate) struct Asking {
    /// Reference of the request that asks for this, for the audit log
    #[arg(long, value_name = "REFERENCE")]
    pub(crate) case: Option<String>,
    /// Audit log to write to, instead of audit/queries.jsonl in the archive
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct WhoArguments {
    #[arg(long, value_name = "DIR|URL", help = ARCHIVE)]
    pub(crate) archive: PathBuf,
    /// Identity that opens an encrypted archive, as `hotspot keys new` made it. May be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) trusting: Trusting,
    #[command(flatten)]
    pub(crate) asking: Asking,
    /// Address and port as the other side saw them; IPv6 in brackets
    #[arg(long, value_name = "IP:PORT", value_parser = endpoint::public_endpoint)]
    pub(crate) public: std::net::SocketAddr,
    /// When the other side saw them. A time is as long as its last digit counts: 10:02:03 is that whole second, 10:02 that minute
    #[arg(long, value_name = "TIME")]
    pub(crate) at: String,
    /// Only this protocol
    #[arg(long, value_name = "NAME|NUMBER")]
    pub(crate) proto: Option<String>,
    /// Port blocks and rules of a translator that reports no single translation, as TOML: whoever they give the address and port
    /// to is asked for too (docs/formats/nat-map.md)
    #[arg(long, value_name = "FILE")]
    pub(crate) nat_map: Option<PathBuf>,
    /// Time zone of a time without one, and of the answer
    #[arg(long, value_name = "ZONE")]
    pub(crate) tz: Option<String>,
    /// How far the other side's clock may be off, in seconds
    #[arg(long, default_value_t = 2, value_name = "SECONDS")]
    pub(crate) tolerance: u32,
    /// One JSON object per candidate; the last line says what the answer is
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DecodeArguments {
    /// Segments (.parquet), journals or state files; of an encrypted journal, on its gateway, or with its wrapped key (.age) beside it
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Where the gateway's keys of open journals lie, if it was given --key-dir
    #[arg(long, value_name = "DIR")]
    pub(crate) key_dir: Option<PathBuf>,
    /// Identity that opens an encrypted archive, as `hotspot keys new` made it. May be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) asking: Asking,
    /// One JSON object per record; the last line says what the answer is
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whom the reader believes beside the archive.
#[derive(Debug, Args)]
pub(crate) struct Trusting {
    /// Public keys got by another way than with the archive: lines of a gateway and its key, or one key for an archive of one gateway. May
    /// be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) public_key: Vec<PathBuf>,
    /// The last line that a gateway is trusted to have written, after it was stolen or taken over: GATEWAY:LINE, or a file with a
    /// checkpoint of that line. What comes after is marked, and deletes nothing. May be given several times
    #[arg(long, value_name = "GATEWAY:LINE|FILE")]
    pub(crate) trusted_until: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    #[arg(long, value_name = "DIR|URL", help = ARCHIVE)]
    pub(crate) archive: PathBuf,
    /// Also check an audit log that lies elsewhere, under the name that a witness knows it by. May be given several times
    #[arg(long, value_name = "[NAME=]FILE", value_parser = outside::audit_log)]
    pub(crate) audit: Vec<AuditLog>,
    #[command(flatten)]
    pub(crate) trusting: Trusting,
    /// How long records have to be kept, whatever the gateway says of it: an earlier deletion is a finding
    #[arg(long, value_name = "CLASS=DAYSd,…", default_value = "", hide_default_value = true, value_parser = policy)]
    pub(crate) policy: hotspot_archive::policy::Policy,
    /// Where files were moved to (as `hotspot ship --keep-here` does): they are looked at there. May be given several times
    #[arg(long, value_name = "DIR|URL")]
    pub(crate) moved_at: Vec<String>,
    /// File with checkpoints that the agent reported elsewhere (or a log that holds them), or that a witness signed: a cut end is noticed. May be
    /// given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Vec<PathBuf>,
    /// Public key of a witness, as `hotspot witness new-key` printed it: what it signed counts. May be given several times
    #[arg(long, value_name = "NAME+ID+KEY")]
    pub(crate) witness: Vec<String>,
    /// Certificate (PEM) of a time-stamping authority's root: time stamps that lead to it count. May be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) tsa_ca: Vec<PathBuf>,
    /// How long lines may have been without a checkpoint that somebody else has: 90m, 2h, 3d. Without it a day, and only a notice
    #[arg(long, value_name = "TIME", value_parser = outside::duration_ns)]
    pub(crate) checkpoint_gap: Option<i64>,
    /// Identity, to check the wrapped keys of its segments too, and every row that it opens. May be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Vec<PathBuf>,
    /// Read every row that can be opened without an identity, and compare them with the roots the lines name
    #[arg(long)]
    pub(crate) rows: bool,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CoverageArguments {
    #[arg(long, value_name = "DIR|URL", help = ARCHIVE)]
    pub(crate) archive: PathBuf,
    /// Identity that opens an encrypted archive, as `hotspot keys new` made it. May be given several times
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) trusting: Trusting,
    /// One JSON object per interface; the last line says what the answer is
    #[arg(long)]
    pub(crate) json: bool,
}
