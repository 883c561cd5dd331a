//! Asking an archive of many segments, in the clear and encrypted, beside nfdump and `DuckDB` over the same flows.
//!
//! Hours of `traffic`, each with people of its own, sealed in segments of five minutes; nfdump has a file per segment, compressed with LZ4.
//! Every question is asked by the shipped tool as a person would, its process and its audit line included; `DuckDB` answers in one
//! warm process. The median of warm runs counts. With `--keep` the archives stay in `target/bench` for the next run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use hotspot_archive::keys::{Identity, Recipients};
use hotspot_archive::manifest::{GatewayKey, Manifest, Sealing};
use hotspot_archive::segment::Origin;
use hotspot_core::record::FlowRecord;
use hotspot_tests::namespace::run as command_output;
use serde::{Deserialize, Serialize};

use crate::nfdump::{Collector, Compression, Fields, compress};
use crate::traffic::{BEGIN_NS, SEGMENTS as HOUR_SEGMENTS, Traffic};
use crate::write_json;

const SECOND_NS: i64 = 1_000_000_000;
pub(crate) const ROTATE_NS: i64 = 300 * SECOND_NS;
pub(crate) const WARM_RUNS: usize = 5;
/// A full scan takes seconds.
const SCAN_RUNS: usize = 3;

/// What is asked, of how much.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Flows of the archive
    #[arg(long, default_value_t = 100_000_000)]
    flows: u64,
    /// Segments they are in
    #[arg(long, default_value_t = 2_000)]
    segments: u64,
    /// Leaves the archives for the next run of as many flows and segments
    #[arg(long)]
    keep: bool,
}

/// One question, asked of everybody who can be asked.
#[derive(Serialize)]
struct Figure {
    query: &'static str,
    rows: u64,
    rows_nfdump: Option<u64>,
    ours_s: f64,
    ours_encrypted_s: f64,
    nfdump_s: Option<f64>,
    duckdb_s: f64,
}

/// What is asked for: one flow of the middle of the archive, so that every question has an answer.
#[derive(Serialize, Deserialize)]
struct Needle {
    client: String,
    user: String,
    public: String,
    public_port: u16,
    peer: String,
    at_ns: i64,
    from_ns: i64,
}

/// Where everything lies.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn of(options: &Options) -> Self {
        Self { dir: PathBuf::from(format!("target/bench/search-{}-{}", options.flows, options.segments)) }
    }

    fn plain(&self) -> PathBuf {
        self.dir.join("plain")
    }

    fn encrypted(&self) -> PathBuf {
        self.dir.join("encrypted")
    }

    fn identity(&self) -> PathBuf {
        self.dir.join("identity")
    }

    fn nfdump(&self) -> PathBuf {
        self.dir.join("nfdump")
    }

    fn needle(&self) -> PathBuf {
        self.dir.join("needle.json")
    }
}

/// Measures, prints the table, and writes the file.
#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
pub(crate) fn run(json: Option<&Path>, options: &Options) -> anyhow::Result<()> {
    let place = Place::of(options);
    if !place.needle().exists() {
        // Half of an archive is none.
        if place.dir.exists() {
            fs::remove_dir_all(&place.dir)?;
        }
        make(&place, options)?;
    }
    let needle: Needle = serde_json::from_slice(&fs::read(place.needle())?)?;
    println!("{} flows in {} segments; seconds, medians of warm runs", options.flows, options.segments);
    println!(
        "{:<16}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}",
        "query", "rows", "nfdump", "ours", "encrypted", "nfdump s", "duckdb s"
    );
    let mut figures = Vec::new();
    for question in questions(&needle) {
        let figure = measure(&place, &question)?;
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        println!(
            "{:<16}  {:>9}  {:>9}  {:>9.4}  {:>9.4}  {:>9}  {:>9.4}",
            figure.query,
            figure.rows,
            or_dash(figure.rows_nfdump.map(|rows| rows.to_string())),
            figure.ours_s,
            figure.ours_encrypted_s,
            or_dash(figure.nfdump_s.map(|seconds| format!("{seconds:.4}"))),
            figure.duckdb_s
        );
        figures.push(figure);
    }
    write_json(json, &figures)?;
    if !options.keep {
        fs::remove_dir_all(&place.dir)?;
    }
    Ok(())
}

/// Makes both archives and the files of nfdump, hour by hour, each with its own clients.
#[expect(clippy::print_stdout, reason = "says how far it is; a hundred million flows take minutes")]
fn make(place: &Place, options: &Options) -> anyhow::Result<()> {
    let (segments, hour_segments) = (options.segments, HOUR_SEGMENTS as u64);
    let flows_per_hour = options.flows.div_ceil(segments) * hour_segments;
    fs::create_dir_all(place.nfdump())?;
    let identities = [Identity::generate(), Identity::generate()];
    let names: Vec<String> = identities.iter().map(Identity::recipient).collect();
    fs::write(place.identity(), identities[0].expose().as_bytes())?;
    fs::set_permissions(place.identity(), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let open = |archive: PathBuf, recipients| -> anyhow::Result<Manifest> {
        let key = GatewayKey::open(&place.dir.join("signing.key"))?;
        Ok(Manifest::open(&archive, "gw1", key)?.encrypted_for(recipients))
    };
    let mut plain = open(place.plain(), None)?;
    let mut encrypted = open(place.encrypted(), Some(Recipients::parse(&names, false)?))?;
    let mut needle = None;
    for hour in 0..segments.div_ceil(hour_segments) {
        let mut traffic = Traffic::new(hour, flows_per_hour);
        for segment in hour * hour_segments..segments.min((hour + 1) * hour_segments) {
            let mut rows = traffic.next_segment().context("an hour has twelve segments")?;
            let later_ns = i64::try_from(hour * hour_segments)? * ROTATE_NS;
            for row in &mut rows {
                row.start_ns += later_ns;
                row.end_ns += later_ns;
                row.flow_id += (hour * hour_segments) << 32;
            }
            let opened_ns = BEGIN_NS + i64::try_from(segment)? * ROTATE_NS;
            for manifest in [&mut plain, &mut encrypted] {
                seal(manifest, segment + 1, opened_ns, &rows)?;
            }
            if segment == segments / 2 {
                needle = find_needle(&rows, opened_ns);
            }
            collect(place, segment, rows)?;
        }
        println!("{} of {segments} segments made", segments.min((hour + 1) * hour_segments));
    }
    let needle = needle.context("no flow of the middle has all that is asked for")?;
    fs::write(place.needle(), serde_json::to_vec_pretty(&needle)?)?;
    Ok(())
}

/// nfdump's file of a segment.
fn collect(place: &Place, segment: u64, rows: Vec<FlowRecord>) -> anyhow::Result<()> {
    let (dir, flows) = (place.dir.join("nfcapd"), rows.len() as u64);
    let collector = Collector::start(&dir, Fields::All)?;
    collector.send(rows)?;
    let (file, sent) = collector.finish()?;
    ensure!(sent.flows == flows, "{} of {flows} flows were sent to nfcapd", sent.flows);
    compress(&file, Compression::Lz4, &place.nfdump().join(format!("nfcapd.{segment:06}")))?;
    Ok(fs::remove_dir_all(&dir)?)
}

/// Seals flows as the sequence that was opened then.
pub(crate) fn seal(manifest: &mut Manifest, sequence: u64, opened_ns: i64, flows: &[FlowRecord]) -> anyhow::Result<()> {
    let origin = Origin { site: "hall".into(), gateway: "gw1".into(), sequence };
    let mut draft = manifest.draft(&origin, opened_ns)?;
    flows.iter().try_for_each(|row| draft.flow(row))?;
    let closed_ns = opened_ns + ROTATE_NS;
    let sealed_ns = closed_ns + 30 * SECOND_NS;
    manifest.seal(
        draft,
        &Sealing { closed_ns, sealed_ns, clock: None, step_ns: 0, sessions: &[], devices: &[], coverage: &[] },
    )?;
    Ok(())
}

/// A flow that has everything, of a client in the middle of the segment.
fn find_needle(rows: &[FlowRecord], from_ns: i64) -> Option<Needle> {
    rows[rows.len() / 2..].iter().find_map(|row| {
        let public = row.public?;
        Some(Needle {
            client: row.client_mac.to_string(),
            user: row.identity.as_ref()?.users.first()?.clone(),
            public: public.ip.to_string(),
            public_port: public.port?,
            peer: row.peer_ip?.to_string(),
            at_ns: row.start_ns,
            from_ns,
        })
    })
}

/// One question, in everybody's language.
struct Question {
    query: &'static str,
    ours: Vec<String>,
    /// The filter, and the options before it.
    nfdump: Option<(Vec<String>, String)>,
    /// `{}` is where the flows are.
    duckdb: String,
    runs: usize,
}

fn questions(needle: &Needle) -> Vec<Question> {
    let Needle { client, user, public, public_port, peer, at_ns, from_ns, .. } = needle;
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let seconds = |ns: i64| ns.div_euclid(SECOND_NS);
    let (from, to) = (seconds(*from_ns), seconds(*from_ns) + 300);
    let (first_us, last_us) = ((at_ns - 2 * SECOND_NS) / 1000, (at_ns + 2 * SECOND_NS) / 1000);
    let during = |from: i64, to: i64| {
        format!("\"end\" >= make_timestamptz({from}::BIGINT) and start <= make_timestamptz({to}::BIGINT)")
    };
    let point = |name: &'static str, ours: Vec<String>, nfdump, filter: String| Question {
        query: name,
        ours,
        nfdump,
        duckdb: format!("select * from {{}} where {filter}"),
        runs: WARM_RUNS,
    };
    vec![
        point(
            "client",
            words(&["--csv", &format!("mac {client}")]),
            Some((Vec::new(), format!("in src mac {client}"))),
            format!("client_mac = '{client}'"),
        ),
        point("user", words(&["--csv", &format!("user \"{user}\"")]), None, format!("\"user\" = '{user}'")),
        point(
            "public",
            words(&["--csv", &format!("public ip {public} port {public_port} at @{}.{:09}", seconds(*at_ns), at_ns % SECOND_NS)]),
            None,
            format!("public_ip = '{public}' and public_port = {public_port} and {}", during(first_us, last_us)),
        ),
        point(
            "peer_5min",
            words(&["--csv", "--from", &format!("@{from}"), "--to", &format!("@{to}"), &format!("dst ip {peer}")]),
            Some((vec!["-t".to_owned(), window(from, to)], format!("dst ip {peer}"))),
            format!("peer_ip = '{peer}' and {}", during(from * 1_000_000, to * 1_000_000 - 1)),
        ),
        Question {
            query: "count_by_client",
            ours: words(&["--csv", "--by", "ip"]),
            nfdump: Some((words(&["-A", "srcip"]), "any".to_owned())),
            duckdb: "select client_ip, count(*), sum(packets_out), sum(bytes_out), sum(packets_in), sum(bytes_in) from {} group by 1"
                .to_owned(),
            runs: SCAN_RUNS,
        },
    ]
}

/// nfdump's window of time, in UTC.
fn window(from: i64, to: i64) -> String {
    let show = |seconds: i64| {
        let time =
            command_output(Command::new("date").args(["-u", "-d", &format!("@{seconds}"), "+%Y/%m/%d.%H:%M:%S"]));
        time.unwrap_or_default().trim().to_owned()
    };
    format!("{}-{}", show(from), show(to - 1))
}

fn measure(place: &Place, question: &Question) -> anyhow::Result<Figure> {
    let (ours_s, rows) = ask_ours(place, question, false)?;
    let (ours_encrypted_s, rows_encrypted) = ask_ours(place, question, true)?;
    ensure!(rows == rows_encrypted, "{}: {rows} rows, encrypted {rows_encrypted}", question.query);
    let nfdump = question.nfdump.as_ref().map(|(options, filter)| ask_nfdump(place, options, filter)).transpose()?;
    let (duckdb_s, rows_duckdb) = ask_duckdb(place, question)?;
    ensure!(rows == rows_duckdb, "{}: {rows} rows, DuckDB finds {rows_duckdb}", question.query);
    Ok(Figure {
        query: question.query,
        rows,
        rows_nfdump: nfdump.map(|(_, rows)| rows),
        ours_s,
        ours_encrypted_s,
        nfdump_s: nfdump.map(|(seconds, _)| seconds),
        duckdb_s,
    })
}

/// Runs something once to warm up, then times it; the median and what the last run gave.
pub(crate) fn warm<T>(runs: usize, mut ask: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<(f64, T)> {
    let mut answer = ask()?;
    let mut times = Vec::new();
    for _ in 0..runs {
        let began = Instant::now();
        answer = ask()?;
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], answer))
}

fn ask_ours(place: &Place, question: &Question, is_encrypted: bool) -> anyhow::Result<(f64, u64)> {
    let archive = if is_encrypted { place.encrypted() } else { place.plain() };
    warm(question.runs, || {
        let mut command = Command::new("target/release/hotspot");
        command.arg("find").arg("--archive").arg(&archive).arg("--case").arg("bench");
        if is_encrypted {
            command.arg("--identity").arg(place.identity());
        }
        let output = command.args(&question.ours).stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "hotspot find {:?}: {}", question.ours, output.status);
        // Without the header.
        Ok((String::from_utf8_lossy(&output.stdout).lines().count() as u64).saturating_sub(1))
    })
}

fn ask_nfdump(place: &Place, options: &[String], filter: &str) -> anyhow::Result<(f64, u64)> {
    warm(1, || {
        let mut command = Command::new("nfdump");
        // Times are UTC on both sides.
        command
            .env("TZ", "UTC")
            .arg("-R")
            .arg(place.nfdump())
            .args(["-q", "-o", "csv", "-N"])
            .args(options)
            .arg(filter);
        let output = command.output()?;
        ensure!(output.status.success(), "nfdump {options:?} {filter}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        // Lines of flows begin with a time or an address, whatever the version says around them.
        let is_row = |line: &&str| {
            line.starts_with(|c: char| c.is_ascii_hexdigit()) && line.contains(',') && line.contains(['.', ':'])
        };
        Ok(text.lines().filter(is_row).count() as u64)
    })
}

/// Asks `DuckDB` in one process, which times itself.
fn ask_duckdb(place: &Place, question: &Question) -> anyhow::Result<(f64, u64)> {
    const SCRIPT: &str = "
import duckdb, json, statistics, sys, time
sql, runs = sys.argv[1], int(sys.argv[2])
db = duckdb.connect()
db.execute(\"set timezone = 'UTC'\")
db.execute('set parquet_metadata_cache = true')
db.execute('set enable_progress_bar = false')
times = []
for run in range(runs + 1):
    began = time.perf_counter()
    rows = len(db.sql(sql).to_arrow_table())
    times.append(time.perf_counter() - began)
print(json.dumps({'rows': rows, 'seconds': statistics.median(times[1:])}))
";
    #[derive(Deserialize)]
    struct Answer {
        rows: u64,
        seconds: f64,
    }
    let files = format!("read_parquet('{}/flows/*/*/*.parquet', hive_partitioning = false)", place.plain().display());
    let mut command = Command::new("target/venv/bin/python");
    command.args(["-c", SCRIPT, &question.duckdb.replace("{}", &files), &question.runs.to_string()]);
    let text = command_output(&mut command)?;
    let answer: Answer = serde_json::from_str(text.trim()).with_context(|| format!("DuckDB says {text}"))?;
    Ok((answer.seconds, answer.rows))
}
