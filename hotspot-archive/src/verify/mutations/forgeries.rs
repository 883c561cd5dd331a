//! Changes that need a key, or that are made beside the chain: forged lines, early deletions, back-dating, receipts, pins, and what only a
//! witness or the head of an audit log shows.

use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};

use super::{AUDIT, DAY_NS, Dice, Held, World, lines};
use crate::chain::{DeletedFile, EVENT_FORMAT, Event, EventLine, Line, Record, parse};
use crate::manifest::{key_id, to_hex};
use crate::policy::Policy;
use crate::retention::ClockEvidence;

/// One of eight.
pub(super) fn forge(world: &World, other: &World, number: usize, dice: &mut Dice) -> Option<Held> {
    let mut held = world.held.clone();
    let key = &world.keys[world.keys.len() - 1];
    match number {
        0 => append_event(&mut held, key, dice, |held, dice| deletion(held, dice, "g")),
        1 => append_event(&mut held, key, dice, |held, dice| deletion(held, dice, "other")),
        2 => {
            // A line that nobody signed.
            append_event(&mut held, key, dice, |held, dice| deletion(held, dice, "g"))?;
            let end = held.text.len() - 3;
            held.text[end - 128..end].fill(b'0');
            Some(())
        }
        3 => back_date(&mut held, key, dice),
        4 => receipt(&mut held, dice),
        5 => {
            let public = to_hex(other.keys[0].verifying_key().as_bytes());
            held.files.insert("manifest/g.pub".to_owned(), public.into_bytes());
            Some(())
        }
        6 => write_again(&mut held, key, dice),
        _ => cut_audit(&mut held, dice),
    }?;
    Some(held)
}

fn sign(key: &SigningKey, object: &impl serde::Serialize) -> Vec<u8> {
    let signed = serde_json::to_string(object).unwrap();
    let signature = to_hex(&key.sign(signed.as_bytes()).to_bytes());
    format!("{},\"signature\":\"{signature}\"}}\n", signed.strip_suffix('}').unwrap()).into_bytes()
}

fn records(held: &Held) -> Vec<Record> {
    let text = std::str::from_utf8(&held.text).unwrap();
    text.lines().map(|line| parse(line).unwrap().record).collect()
}

fn last_segment(held: &Held) -> Option<Line> {
    records(held).into_iter().rev().find_map(|record| match record {
        Record::Segment(line) => Some(line),
        Record::Event(_) => None,
    })
}

fn prev(held: &Held) -> String {
    let last = lines(&held.text).pop().unwrap();
    to_hex(&Sha256::digest(&last[..last.len() - 1]))
}

fn append_event(
    held: &mut Held,
    key: &SigningKey,
    dice: &mut Dice,
    event: impl FnOnce(&Held, &mut Dice) -> Option<Event>,
) -> Option<()> {
    let event = event(held, dice)?;
    let last = records(held).pop()?;
    let line = EventLine {
        format: EVENT_FORMAT,
        gateway: "g".into(),
        at_ns: last.written_ns() + i64::try_from(dice.below(12)).unwrap() * DAY_NS / 24,
        clock: last.clock().cloned(),
        event,
        prev: prev(held),
        key: key_id(&key.verifying_key()),
    };
    held.text.extend(sign(key, &line));
    Some(())
}

/// Deletes a file of the last sequence, which nothing allows yet, or a path of another gateway; and perhaps the file itself.
fn deletion(held: &Held, dice: &mut Dice, gateway: &str) -> Option<Event> {
    let line = last_segment(held)?;
    // Of other classes nothing says how long they are kept.
    let flows: Vec<_> = line.files.iter().filter(|file| file.path.contains("flows/")).collect();
    let file = flows[dice.below(flows.len())];
    let path = file.path.replace("/g-", &format!("/{gateway}-"));
    let files = vec![DeletedFile { path, sha256: file.sha256.clone() }];
    Some(Event::Deleted { why: Policy::default().to_string(), files })
}

/// A sequence that lies before the one before it, or whose boot's clock runs back.
fn back_date(held: &mut Held, key: &SigningKey, dice: &mut Dice) -> Option<()> {
    let last = last_segment(held)?;
    let back_ns = i64::try_from(1 + dice.below(100)).unwrap() * DAY_NS / 24;
    let clock = last.clock.clone()?;
    let clock =
        ClockEvidence { boottime_ns: clock.boottime_ns - if dice.below(2) == 0 { back_ns } else { 0 }, ..clock };
    let line = Line {
        sequence: last.sequence + 1,
        from_ns: last.from_ns - back_ns,
        to_ns: last.to_ns - back_ns,
        files: Vec::new(),
        clock: Some(clock),
        clock_step_ns: None,
        prev: prev(held),
        key: key_id(&key.verifying_key()),
        ..last
    };
    held.text.extend(sign(key, &line));
    Some(())
}

/// A receipt that excuses what is gone, or that names what no chain has.
fn receipt(held: &mut Held, dice: &mut Dice) -> Option<()> {
    let sequence = 1 + dice.below(9);
    let text =
        format!("{{\"moved\":1,\"gateway\":\"g\",\"sequence\":{sequence},\"to\":\"s3://records/wifi\",\"at_ns\":1}}\n");
    let end = format!("-{sequence:010}.");
    let gone: Vec<String> = held.files.keys().filter(|path| path.contains(&end)).cloned().collect();
    for path in &gone {
        held.files.remove(path);
    }
    held.files.insert("shipped/moved.jsonl".to_owned(), text.into_bytes());
    (!gone.is_empty() || sequence > 4).then_some(())
}

/// The gateway's own key writes the end of the chain again: only the witness saw another one.
fn write_again(held: &mut Held, key: &SigningKey, dice: &mut Dice) -> Option<()> {
    held.has_checkpoint = false;
    let mut kept = lines(&held.text);
    let last = kept.pop()?;
    let Record::Event(line) = parse(std::str::from_utf8(&last).ok()?.trim_end())?.record else { return None };
    held.text = kept.concat();
    let line = EventLine { at_ns: line.at_ns + 1 + i64::try_from(dice.below(1000)).unwrap(), ..line };
    held.text.extend(sign(key, &line));
    Some(())
}

/// Lines are cut off the end of the audit log, of which the checkpoint has the head.
fn cut_audit(held: &mut Held, dice: &mut Dice) -> Option<()> {
    let log = held.files.get_mut(AUDIT)?;
    let kept = lines(log);
    log.truncate(kept[..dice.below(kept.len())].concat().len());
    Some(())
}
