//! What an archive costs: bytes per flow beside nfdump's, and sealing's speed and memory, over the same flows.

pub(crate) mod journal;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use hotspot_archive::keys::{DataKey, Identity, Keyring, Recipients, sidecar_path};
use hotspot_archive::layout::DataDir;
use hotspot_archive::segment::{FlowWriter, Origin, SegmentReader};
use hotspot_core::record::FlowRecord;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::nfdump::{self, Collector, Compression, Fields};
use crate::traffic::Traffic;
use crate::write_json;

const SEED: u64 = 20_261_124;
/// Segments of the hour that are sealed from one journal, to see what memory that takes.
const JOURNAL_SEGMENTS: usize = 5;

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rows of flows to make
    #[arg(long, default_value_t = 5_000_000)]
    flows: u64,
    /// What nfdump is given of each flow
    #[arg(long, value_enum, default_value_t = Fields::All)]
    nfdump_fields: Fields,
    /// Leaves nfdump out
    #[arg(long)]
    no_nfdump: bool,
    /// Bytes per flow of each column
    #[arg(long)]
    columns: bool,
}

#[derive(Serialize)]
struct Figures {
    flows: u64,
    bytes_per_flow: f64,
    bytes_per_flow_encrypted: f64,
    nfdump_lz4_bytes_per_flow: f64,
    nfdump_bz2_bytes_per_flow: f64,
    /// Uncompressed, and what was in it.
    nfdump_bytes_per_flow: f64,
    nfdump_fields: Fields,
    /// From merged, joined flows to a durable segment: columns, compression, flush.
    seal_flows_per_s_core: f64,
    seal_encrypted_flows_per_s_core: f64,
    /// From a journal to a manifest line, in a process of its own: replay, merge, join, segment, hash.
    journal_flows: u64,
    /// Before compression.
    journal_mib: f64,
    journal_flows_per_s_core: f64,
    rss_max_mib: f64,
}

/// Measures, prints the table, and writes the file.
#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
pub(crate) fn run(json: Option<&Path>, options: &Options) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (ours, rest) = seal_all(dir.path(), options)?;
    let nfdump = match rest {
        None => NfdumpSize::default(),
        Some(collector) => measure_nfdump(dir.path(), collector, ours.flows)?,
    };
    let per_flow = |bytes: u64| bytes as f64 / ours.flows as f64;
    let speed = |cpu: Duration| ours.flows as f64 / cpu.as_secs_f64();
    let figures = Figures {
        flows: ours.flows,
        bytes_per_flow: per_flow(ours.bytes),
        bytes_per_flow_encrypted: per_flow(ours.bytes_encrypted),
        nfdump_lz4_bytes_per_flow: per_flow(nfdump.lz4),
        nfdump_bz2_bytes_per_flow: per_flow(nfdump.bz2),
        nfdump_bytes_per_flow: per_flow(nfdump.plain),
        nfdump_fields: options.nfdump_fields,
        seal_flows_per_s_core: speed(ours.cpu),
        seal_encrypted_flows_per_s_core: speed(ours.cpu_encrypted),
        journal_flows: ours.journal_flows,
        journal_mib: ours.journal_bytes as f64 / f64::from(1 << 20),
        journal_flows_per_s_core: ours.journal_flows as f64 / ours.journal.cpu_s,
        rss_max_mib: ours.journal.rss_max_mib,
    };
    if options.columns {
        let mut columns: Vec<_> = ours.columns.iter().collect();
        columns.sort_by_key(|(_, bytes)| std::cmp::Reverse(**bytes));
        for (name, bytes) in columns {
            println!("{name:>20}  {:>7.3}", per_flow(*bytes));
        }
    }
    println!("flows                            {:>10}", figures.flows);
    println!("bytes per flow                   {:>10.2}", figures.bytes_per_flow);
    println!("  encrypted                      {:>10.2}", figures.bytes_per_flow_encrypted);
    println!("nfdump, not compressed           {:>10.2}", figures.nfdump_bytes_per_flow);
    println!("  LZ4                            {:>10.2}", figures.nfdump_lz4_bytes_per_flow);
    println!("  BZ2                            {:>10.2}", figures.nfdump_bz2_bytes_per_flow);
    println!("sealed, flows per second of CPU  {:>10.0}", figures.seal_flows_per_s_core);
    println!("  encrypted                      {:>10.0}", figures.seal_encrypted_flows_per_s_core);
    println!("  from a journal of {:>8}     {:>10.0}", figures.journal_flows, figures.journal_flows_per_s_core);
    println!("  written to that journal, MiB   {:>10.0}", figures.journal_mib);
    println!("  most memory, MiB               {:>10.0}", figures.rss_max_mib);
    write_json(json, &figures)
}

struct Ours {
    flows: u64,
    bytes: u64,
    bytes_encrypted: u64,
    cpu: Duration,
    cpu_encrypted: Duration,
    columns: BTreeMap<String, u64>,
    journal_flows: u64,
    journal_bytes: u64,
    journal: journal::Cost,
}

/// Seals the hour, segment by segment, and gives nfdump the same.
fn seal_all(dir: &Path, options: &Options) -> anyhow::Result<(Ours, Option<Collector>)> {
    let collector =
        if options.no_nfdump { None } else { Some(Collector::start(&dir.join("nfdump"), options.nfdump_fields)?) };
    let recipients: Vec<String> = (0..2).map(|_| Identity::generate().recipient()).collect();
    let recipients = Recipients::parse(&recipients, false)?;
    let mut traffic = Traffic::new(SEED, options.flows);
    let mut ours = Ours {
        flows: 0,
        bytes: 0,
        bytes_encrypted: 0,
        cpu: Duration::ZERO,
        cpu_encrypted: Duration::ZERO,
        columns: BTreeMap::new(),
        journal_flows: 0,
        journal_bytes: 0,
        journal: journal::Cost { cpu_s: 0.0, rss_max_mib: 0.0 },
    };
    let mut of_journal = Vec::new();
    let mut sequence = 0;
    while let Some(rows) = traffic.next_segment() {
        sequence += 1;
        let path = dir.join(format!("{sequence}.parquet"));
        let began = cpu_time();
        seal(&path, sequence, None, &rows)?;
        ours.cpu += cpu_time().saturating_sub(began);
        let sealed = dir.join(format!("{sequence}-encrypted.parquet"));
        let began = cpu_time();
        let key = recipients.fresh_key(&sealed)?;
        seal(&sealed, sequence, Some(&key), &rows)?;
        ours.cpu_encrypted += cpu_time().saturating_sub(began);
        ours.flows += rows.len() as u64;
        ours.bytes += fs::metadata(&path)?.len();
        ours.bytes_encrypted += fs::metadata(&sealed)?.len() + fs::metadata(sidecar_path(&sealed))?.len();
        for group in SegmentReader::open(&path, &Keyring::none())?.metadata().row_groups() {
            for column in group.columns() {
                *ours.columns.entry(column.column_path().string()).or_default() +=
                    column.compressed_size().unsigned_abs();
            }
        }
        if sequence <= JOURNAL_SEGMENTS as u64 {
            of_journal.push(rows.clone());
        } else if !of_journal.is_empty() {
            let data = DataDir(dir.join("data"));
            ours.journal_bytes = journal::write(&data, &std::mem::take(&mut of_journal))?;
            ours.journal = journal::seal_apart(&data)?;
        }
        if of_journal.len() == JOURNAL_SEGMENTS {
            ours.journal_flows = of_journal.iter().map(|rows| rows.len() as u64).sum();
        }
        if let Some(collector) = &collector {
            collector.send(rows)?;
        }
    }
    Ok((ours, collector))
}

fn seal(path: &Path, sequence: u64, key: Option<&DataKey>, rows: &[FlowRecord]) -> anyhow::Result<()> {
    let origin = Origin { site: "cafe-1".into(), gateway: "gw1".into(), sequence };
    let mut writer = FlowWriter::create(path, &origin, key)?;
    rows.iter().try_for_each(|row| writer.push(row))?;
    writer.finish()?;
    Ok(())
}

#[derive(Default)]
struct NfdumpSize {
    plain: u64,
    lz4: u64,
    bz2: u64,
}

fn measure_nfdump(dir: &Path, collector: Collector, flows: u64) -> anyhow::Result<NfdumpSize> {
    let (file, sent) = collector.finish()?;
    ensure!(sent.flows == flows, "{} of {flows} flows were sent to nfcapd", sent.flows);
    let (lz4, bz2) = (dir.join("lz4"), dir.join("bz2"));
    let sizes = NfdumpSize {
        plain: fs::metadata(&file)?.len(),
        lz4: nfdump::compress(&file, Compression::Lz4, &lz4)?,
        bz2: nfdump::compress(&file, Compression::Bz2, &bz2)?,
    };
    for file in [file, lz4, bz2] {
        let counted = nfdump::count(&file)?;
        ensure!(counted == sent, "nfdump counts {counted:?} in {}, sent were {sent:?}", file.display());
    }
    Ok(sizes)
}

/// Processor time of this process.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
