//! Reading a chain as far as it can be believed, at the cost of one signature an epoch.
//!
//! A line names the hash of the line before it, so a signature on the last line of an epoch vouches for every line of it. Only where
//! something does not fit is each line checked by its own signature, to name the first that is wrong; after that one nothing is believed.

use std::thread;

use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};

use super::{Beside, ChainCheck, Event, EventLine, Record, Remark, Severity, parse};
use crate::signing::is_signed;

/// Lines of one chain that a checked signature vouches for.
pub struct Believed {
    /// Each with its number, which counts from 1.
    pub records: Vec<(u64, Record)>,
    /// What these lines add up to.
    pub check: ChainCheck,
    /// What is wrong. Where a line cannot be believed at all, it is the last one that is named.
    pub remarks: Vec<Remark>,
    /// Bytes of the text up to the end of the last whole line.
    pub len: usize,
}

impl Believed {
    /// Whether every whole line is believed. Lines that say what they may not are no reason to believe others less.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.records.len() as u64 == self.check.lines() && self.broken().is_none()
    }

    /// The line from which on nothing is believed.
    #[must_use]
    pub fn broken(&self) -> Option<&Remark> {
        self.remarks.last().filter(|remark| remark.line.is_some_and(|line| line > self.records.len() as u64))
    }
}

/// Reads the text of a chain. A last line without its end is still being written, and left out.
#[must_use]
pub fn believe(gateway: &str, root: VerifyingKey, text: &[u8], beside: Beside) -> Believed {
    let len = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines: Vec<&[u8]> = match text[..len].strip_suffix(b"\n") {
        Some(lines) => lines.split(|byte| *byte == b'\n').collect(),
        None => Vec::new(),
    };
    let parsed = parse_all(&lines);
    by_epoch(gateway, root, &lines, parsed, beside.clone(), len)
        .unwrap_or_else(|()| one_by_one(gateway, root, &lines, beside, len))
}

/// The fast way. `Err`: something does not fit.
fn by_epoch(
    gateway: &str,
    root: VerifyingKey,
    lines: &[&[u8]],
    parsed: Vec<Option<(Record, [u8; 32])>>,
    beside: Beside,
    len: usize,
) -> Result<Believed, ()> {
    let mut check = ChainCheck::new(gateway, root, beside);
    let mut remarks = Vec::new();
    let mut records = Vec::with_capacity(lines.len());
    let last = lines.len();
    for (number, (bytes, parsed)) in (1u64..).zip(lines.iter().zip(parsed)) {
        let (record, hash) = parsed.ok_or(())?;
        let is_end_of_epoch = matches!(&record, Record::Event(EventLine { event: Event::Epoch { .. }, .. }));
        let fits = check.check_key(&record).is_ok() && check.follows(&record) && record.gateway() == gateway;
        let is_next = match &record {
            Record::Segment(line) => line.sequence == check.next_sequence(),
            Record::Event(_) => true,
        };
        let needs_signature = is_end_of_epoch || number == last as u64;
        if !fits || !is_next || (needs_signature && !has_signature(&check, bytes)) {
            return Err(());
        }
        check.take(&record, hash, true, &mut |remark| remarks.push(remark));
        records.push((number, record));
    }
    check.finish(|remark| remarks.push(remark));
    Ok(Believed { records, check, remarks, len })
}

fn has_signature(check: &ChainCheck, bytes: &[u8]) -> bool {
    let line = std::str::from_utf8(bytes).ok().and_then(parse);
    line.is_some_and(|line| is_signed(check.key(), &line.signed, line.signature))
}

/// The slow way: up to the first line that cannot be believed.
fn one_by_one(gateway: &str, root: VerifyingKey, lines: &[&[u8]], beside: Beside, len: usize) -> Believed {
    let mut check = ChainCheck::new(gateway, root, beside);
    let (mut remarks, mut records) = (Vec::new(), Vec::new());
    for (number, bytes) in (1u64..).zip(lines) {
        let mut trial = Vec::new();
        let next = check.next_sequence();
        if let Some(why) = why_not(&check, bytes, next) {
            let left = lines.len() as u64 - number + 1;
            let what = format!("{why}; it and what follows ({left} lines) is not believed");
            remarks.push(Remark { line: Some(number), severity: Severity::Damage, what });
            return Believed { records, check, remarks, len };
        }
        if let Some(record) = check.push(bytes, |remark| trial.push(remark)) {
            records.push((number, record));
        }
        remarks.append(&mut trial);
    }
    check.finish(|remark| remarks.push(remark));
    Believed { records, check, remarks, len }
}

/// Why a line cannot be the next of its chain.
fn why_not(check: &ChainCheck, bytes: &[u8], next: u64) -> Option<String> {
    let Some(line) = std::str::from_utf8(bytes).ok().and_then(parse) else {
        return Some("is not a manifest line".to_owned());
    };
    if let Err(why) = check.check_key(&line.record) {
        return Some(why);
    }
    if !is_signed(check.key(), &line.signed, line.signature) {
        return Some("the signature does not fit the line".to_owned());
    }
    if !check.follows(&line.record) {
        return Some("does not follow the line before it".to_owned());
    }
    if line.record.gateway() != check.gateway() {
        return Some(format!("belongs to gateway {}", line.record.gateway()));
    }
    match &line.record {
        Record::Segment(segment) if segment.sequence != next => {
            Some(format!("has sequence {}, expected {next}", segment.sequence))
        }
        Record::Segment(_) | Record::Event(_) => None,
    }
}

/// Takes lines apart and hashes them, by as many threads as there are processors.
fn parse_all(lines: &[&[u8]]) -> Vec<Option<(Record, [u8; 32])>> {
    let parse_one = |bytes: &&[u8]| {
        let record = std::str::from_utf8(bytes).ok().and_then(parse)?.record;
        Some((record, Sha256::digest(bytes).into()))
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    if lines.len() < LINES_WORTH_A_THREAD || threads == 1 {
        return lines.iter().map(parse_one).collect();
    }
    let parts: Vec<&[&[u8]]> = lines.chunks(lines.len().div_ceil(threads)).collect();
    thread::scope(|scope| {
        let runs: Vec<_> =
            parts.iter().map(|part| scope.spawn(move || part.iter().map(parse_one).collect::<Vec<_>>())).collect();
        runs.into_iter().flat_map(|run| run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// Fewer lines are taken apart sooner than a thread is begun.
const LINES_WORTH_A_THREAD: usize = 64;
