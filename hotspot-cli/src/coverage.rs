//! `hotspot coverage`: where every packet ended, summed per interface.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use hotspot_archive::filter::Filter;
use hotspot_archive::search::{Interval, describe_gap};
use hotspot_archive::unrecorded::{Unrecorded, Why};
use hotspot_core::record::Tallied;
use serde_json::{Map, Value, json};

use crate::arguments::CoverageArguments;
use crate::envelope::{Envelope, Form};
use crate::find::open;
use crate::output::{Table, json_line, line, stdout};
use crate::time::Zone;
use crate::{Failure, Outcome};

#[derive(Default)]
struct Balance {
    generations: u64,
    /// How the interface was covered, `in:tcx out:tcx`.
    hooks: BTreeSet<String>,
    seen: Tallied,
    flows: Tallied,
    overflow: Tallied,
    outcomes: BTreeMap<String, Tallied>,
    unbalanced: u64,
    gaps: Vec<String>,
}

impl Balance {
    fn outcome_total(&self) -> Tallied {
        self.outcomes.values().fold(Tallied::default(), |sum, count| plus(sum, *count))
    }
}

fn plus(left: Tallied, right: Tallied) -> Tallied {
    Tallied { packets: left.packets + right.packets, bytes: left.bytes + right.bytes }
}

pub(crate) fn run(arguments: &CoverageArguments) -> Result<Outcome, Failure> {
    let archive = open(&arguments.archive, &arguments.identity, &arguments.trusting, &Filter::Everything)?;
    let mut damage = archive.damage().to_vec();
    let mut balances: BTreeMap<String, Balance> = BTreeMap::new();
    for row in archive.coverage(Interval::ALWAYS, &mut damage) {
        let balance = balances.entry(row.interface.clone()).or_default();
        if let Some(gap) = describe_gap(&row) {
            balance.gaps.push(gap);
            continue;
        }
        balance.generations += 1;
        balance.hooks.insert(row.hook.clone());
        balance.seen = plus(balance.seen, row.seen);
        balance.flows = plus(balance.flows, row.flows);
        balance.overflow = plus(balance.overflow, row.overflow);
        balance.unbalanced += u64::from(!row.balances());
        for (label, count) in &row.outcomes {
            let total = balance.outcomes.entry(label.clone()).or_default();
            *total = plus(*total, *count);
        }
    }
    let mut to = stdout();
    if arguments.json {
        balances.iter().try_for_each(|(interface, balance)| json_line(&mut to, &as_json(interface, balance)))?;
    } else if !balances.is_empty() {
        write_table(&mut to, &balances)?;
    }
    let everything = Filter::Everything;
    let mut envelope = Envelope::new("coverage", ["interface", "interfaces"], Zone::new(None)?);
    envelope.wants_whole = true;
    envelope = envelope.over(&archive, Interval::ALWAYS, &everything);
    envelope.found = balances.values().filter(|balance| balance.generations != 0).count();
    envelope.not_searched.extend(damage);
    let unrecorded = archive.unrecorded(Interval::ALWAYS, &everything, &mut Vec::new());
    // Nobody asked for what comes after the last segment.
    let is_missing = |one: &&Unrecorded| one.why != Why::NotSealed;
    envelope.not_recorded.extend(unrecorded.iter().filter(is_missing).map(ToString::to_string));
    if envelope.found == 0 && envelope.not_recorded.is_empty() {
        envelope.not_recorded.push("no segment says what was seen on any interface".to_owned());
    }
    envelope.end(to, if arguments.json { Form::Json } else { Form::Other }, None)
}

fn as_json(interface: &str, balance: &Balance) -> Map<String, Value> {
    let outcomes: Map<String, Value> = balance
        .outcomes
        .iter()
        .map(|(label, count)| (label.clone(), json!({"packets": count.packets, "bytes": count.bytes})))
        .collect();
    let total = balance.outcome_total();
    let value = json!({
        "interface": interface, "generations": balance.generations, "hooks": balance.hooks,
        "seen_packets": balance.seen.packets, "seen_bytes": balance.seen.bytes,
        "flow_packets": balance.flows.packets, "flow_bytes": balance.flows.bytes,
        "overflow_packets": balance.overflow.packets, "overflow_bytes": balance.overflow.bytes,
        "outcome_packets": total.packets, "outcome_bytes": total.bytes,
        "outcomes": outcomes, "balanced": balance.unbalanced == 0, "gaps": balance.gaps,
    });
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

fn write_table(to: &mut impl Write, balances: &BTreeMap<String, Balance>) -> std::io::Result<()> {
    let mut table = Table::new(&["interface", "where", ">packets", ">bytes"]);
    // What concerns all interfaces has gaps only.
    for (interface, balance) in balances.iter().filter(|(_, balance)| balance.generations != 0) {
        let mut push = |place: &str, count: Tallied| {
            table.push(vec![interface.clone(), place.to_owned(), count.packets.to_string(), count.bytes.to_string()]);
        };
        push("seen", balance.seen);
        push("in flows", balance.flows);
        push("in overflow totals", balance.overflow);
        balance.outcomes.iter().for_each(|(label, count)| push(label, *count));
    }
    table.write(to)?;
    for (interface, balance) in balances {
        let verdict = if balance.unbalanced == 0 {
            "seen = in flows + in overflow totals + named outcomes, in every generation".to_owned()
        } else {
            format!("DOES NOT BALANCE in {} generations", balance.unbalanced)
        };
        let hooks: Vec<&str> = balance.hooks.iter().map(String::as_str).collect();
        if balance.generations != 0 {
            let hooks = hooks.join(", then ");
            line(to, format!("{interface}: {verdict} ({} generations, {hooks})", balance.generations))?;
        }
        balance.gaps.iter().try_for_each(|gap| line(to, format!("gap: {gap}")))?;
    }
    Ok(())
}
