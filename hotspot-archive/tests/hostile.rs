//! A search in bounded memory, whatever the files of an archive claim: the limit is set for this whole process, so there is one test.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{Array, ArrayRef, DictionaryArray, RecordBatch, StringArray, new_null_array};
use arrow_schema::{DataType, Field, Schema};
use ed25519_dalek::{Signer, SigningKey};
use hotspot_archive::filter;
use hotspot_archive::keys::Keyring;
use hotspot_archive::layout::Class;
use hotspot_archive::manifest::{GatewayKey, Manifest, Sealing, to_hex};
use hotspot_archive::search::{Archive, By, Interval, Totals};
use hotspot_archive::segment::{FORMAT, Origin, schema};
use hotspot_core::MacAddr;
use hotspot_core::fact::IdentitySource;
use hotspot_core::record::{Attribution, EndReason, FlowRecord, Identity, NatState, PublicEndpoint};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sha2::{Digest, Sha256};

/// What `docs/limits.md` says that a search takes: so much, and so much for each thread.
const BASE_BYTES: u64 = 64 << 20;
const THREAD_BYTES: u64 = 384 << 20;
const THREADS_MAX: usize = 16;
const SEGMENTS: u64 = 4;
/// Hostile files follow the segments.
const HOSTILE: u64 = 6;
const ROWS: u64 = 200_000;
const BEGIN_NS: i64 = 1_795_392_000_000_000_000;
const ROTATE_NS: i64 = 300_000_000_000;

/// No two rows share a value: dictionaries and indexes are as large as they get.
fn flow(segment: u64, row: u64) -> FlowRecord {
    let number = segment * ROWS + row;
    let [.., a, b, c, d] = number.to_be_bytes();
    let start_ns = BEGIN_NS + i64::try_from(segment).unwrap() * ROTATE_NS + i64::try_from(row).unwrap() * 1_000_000;
    FlowRecord {
        flow_id: segment << 32 | row,
        start_ns,
        end_ns: start_ns + 1_000_000_000,
        interface: "lan".into(),
        vlan: None,
        inner_vlan: None,
        client_mac: MacAddr([2, 0, a, b, c, d]),
        client_ip: [0x2001, 0xdb8, 0, 0, 0, 0, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])].into(),
        client_port: Some(u16::from_be_bytes([c, d])),
        public: Some(PublicEndpoint { ip: [203, 0, b, 7].into(), port: Some(u16::from_be_bytes([c, d])) }),
        nat: Some(NatState::Exact),
        peer_ip: Some([0x2001, 0xdb8, 1, 0, 0, 0, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])].into()),
        peer_port: Some(443),
        protocol: Some(6),
        icmp_type: None,
        icmp_code: None,
        packets_out: 1,
        bytes_out: number,
        packets_in: 1,
        bytes_in: number * 7,
        tcp_flags_out: Some(0x1b),
        tcp_flags_in: None,
        end_reason: EndReason::EndOfFlow,
        attribution: Attribution::Authenticated,
        identity: Some(Arc::new(Identity {
            users: vec![format!("person-{number}@example.org")],
            session_ids: vec![format!("controller-1.example.org/{number:016x}")],
            auth_method: None,
            source: IdentitySource::Radius,
            ap_mac: None,
            ssid: None,
            nas: None,
        })),
        hostname: Some(format!("phone-of-{number}").into()),
        device_vendor: None,
    }
}

fn make(dir: &Path) {
    let key = GatewayKey::open(&dir.join("signing.key")).unwrap();
    let mut manifest = Manifest::open(&dir.join("archive"), "gw", key).unwrap();
    for sequence in 1..=SEGMENTS + HOSTILE {
        let opened_ns = BEGIN_NS + i64::try_from(sequence).unwrap() * ROTATE_NS;
        let origin = Origin { site: "cafe".into(), gateway: "gw".into(), sequence };
        let mut draft = manifest.draft(&origin, opened_ns).unwrap();
        let rows = if sequence <= SEGMENTS { ROWS } else { 1 };
        (0..rows).for_each(|row| draft.flow(&flow(sequence, row)).unwrap());
        let closed_ns = opened_ns + ROTATE_NS;
        let sealing = Sealing {
            closed_ns,
            sealed_ns: closed_ns,
            clock: None,
            step_ns: 0,
            sessions: &[],
            devices: &[],
            coverage: &[],
        };
        manifest.seal(draft, &sealing).unwrap();
    }
}

/// A file of flows with one column as it is wanted, and the others null, written without any limit.
fn bomb(path: &Path, sequence: &str, column: &str, values: &ArrayRef, is_dictionary: bool) {
    let fields = |kind_of: &dyn Fn(&Field) -> DataType| {
        let schema = schema::of(Class::Flows);
        let field = |field: &Arc<Field>| Field::new(field.name(), kind_of(field), true);
        Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
    };
    let written = fields(&|field| field.data_type().clone());
    let given = fields(&|field| {
        if field.name() == column { values.data_type().clone() } else { field.data_type().clone() }
    });
    let columns = given.fields().iter().map(|field| {
        if field.name() == column { Arc::clone(values) } else { new_null_array(field.data_type(), values.len()) }
    });
    let batch = RecordBatch::try_new(Arc::clone(&given), columns.collect()).unwrap();
    let metadata =
        [("format", FORMAT), ("class", "flows"), ("site", "cafe"), ("gateway", "gw"), ("sequence", sequence)];
    let pairs = metadata.iter().map(|(key, value)| KeyValue::new(format!("hotspot.{key}"), (*value).to_owned()));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()))
        .set_dictionary_enabled(is_dictionary)
        .set_dictionary_page_size_limit(usize::MAX)
        .set_data_page_size_limit(usize::MAX)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_key_value_metadata(Some(pairs.collect()))
        .build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(File::create(path).unwrap(), written, options).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Puts hostile files where the last segments are, and has the manifest vouch for them, as somebody who holds the signing key could.
fn poison(archive: &Path, key: &SigningKey) {
    let sequence = |number: u64| (SEGMENTS + 1 + number).to_string();
    let segment = |number: u64| {
        let sequence = SEGMENTS + 1 + number;
        archive.join(format!("flows/site=cafe/date=2026-11-23/gw-{sequence:010}.parquet"))
    };
    let long = |bytes: usize| "0".repeat(bytes);
    // One page of a gibibyte, one dictionary of as much, and a value of 128 KiB in each of 100 000 rows.
    let huge: ArrayRef = Arc::new(StringArray::from(vec![long(1 << 30)]));
    bomb(&segment(0), &sequence(0), "interface", &huge, false);
    bomb(&segment(1), &sequence(1), "interface", &huge, true);
    let wide = Arc::new(StringArray::from(vec![long(1 << 17)]));
    let copies: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::new(vec![0; 100_000].into(), wide));
    bomb(&segment(2), &sequence(2), "interface", &copies, true);
    // A footer of 4 GiB, a list of two thousand million row groups, and nothing but ones.
    let whole = fs::read(segment(3)).unwrap();
    let mut lying = whole[..whole.len() - 8].to_vec();
    lying.extend(u32::MAX.to_le_bytes());
    lying.extend(b"PAR1");
    fs::write(segment(3), lying).unwrap();
    let mut list = b"PAR1\x15\x02\x19\xfc\xff\xff\xff\xff\x07".to_vec();
    list.extend(9u32.to_le_bytes());
    list.extend(b"PAR1");
    fs::write(segment(4), list).unwrap();
    fs::write(segment(5), vec![1; 4096]).unwrap();
    let manifest = archive.join("manifest/gw.jsonl");
    let mut text = fs::read_to_string(&manifest).unwrap();
    for number in 0..HOSTILE {
        let path = segment(number);
        let relative = path.strip_prefix(archive).unwrap().display().to_string();
        let at = text.find(&relative).unwrap();
        let hash = at + text[at..].find("\"sha256\":\"").unwrap() + 10;
        let digest = Sha256::digest(fs::read(&path).unwrap());
        let hex = digest.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        text.replace_range(hash..hash + 64, &hex);
    }
    fs::write(manifest, signed_again(&text, key)).unwrap();
}

/// The lines of a chain, each linked to the one before and signed, as whoever holds the key writes them.
fn signed_again(text: &str, key: &SigningKey) -> String {
    let (mut lines, mut prev) = (String::new(), "0".repeat(64));
    for line in text.lines() {
        let (head, _) = line.rsplit_once(",\"signature\":\"").unwrap();
        let at = head.rfind("\"prev\":\"").unwrap() + 8;
        let mut signed = format!("{head}}}");
        signed.replace_range(at..at + 64, &prev);
        let signature = to_hex(&key.sign(signed.as_bytes()).to_bytes());
        let line = format!("{},\"signature\":\"{signature}\"}}", signed.strip_suffix('}').unwrap());
        prev = to_hex(&Sha256::digest(&line));
        lines.push_str(&line);
        lines.push('\n');
    }
    lines
}

#[test]
fn whatever_files_claim_a_search_stays_within_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let root = dir.path().join("archive");
    let seed = fs::read_to_string(dir.path().join("signing.key")).unwrap();
    let seed: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&seed[at..at + 2], 16).unwrap()).collect();
    poison(&root, &SigningKey::from_bytes(&seed.try_into().unwrap()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX) as u64;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let used_kib: u64 =
        status.lines().find_map(|line| line.strip_prefix("VmData:")?.trim().strip_suffix(" kB")?.parse().ok()).unwrap();
    // Writable memory, whether it is touched or not; beyond it the process ends.
    let limit = (used_kib << 10) + BASE_BYTES + threads * THREAD_BYTES;
    setrlimit(Resource::Data, Rlimit { current: Some(limit), maximum: getrlimit(Resource::Data).maximum }).unwrap();
    let archive = Archive::open(&root, Keyring::none()).unwrap();
    for (words, expected, damaged) in [
        ("any", SEGMENTS * ROWS, HOSTILE),
        // Where no row matches, the column that would be too much is not read.
        ("user person-200001@example.org", 1, 3),
        ("hostname phone-of-400*7", 100, 3),
        ("dst net 2001:db8:1::/64 and bytes > 0", SEGMENTS * ROWS, HOSTILE),
    ] {
        let mut found = 0;
        let filter = filter::parse(words).unwrap();
        let mut count = |_| {
            found += 1;
            true
        };
        let damage = archive.search(Interval::ALWAYS, &filter, &mut count, |_| {}).damage;
        assert_eq!((found, damage.len() as u64), (expected, damaged), "{words}: {damage:?}");
    }
    let mut totals = Totals::new(By::Vendor);
    let damage = archive.sum(Interval::ALWAYS, &filter::parse("any").unwrap(), &mut totals, |_| {}).damage;
    assert_eq!(damage.len() as u64, HOSTILE, "{damage:?}");
    assert_eq!(totals.sorted(|sums| sums.flows)[0].1.flows, SEGMENTS * ROWS);
}
