//! `hotspot clock`: by which clocks an archive was written, and what is to be added to its times.

use std::io::Write;

use hotspot_archive::correction::{Corrections, Stretch};
use hotspot_archive::first::unsealed;
use serde_json::{Map, Value, json};

use crate::arguments::ClockArguments;
use crate::output::{Table, json_line, stdout};
use crate::remote::View;
use crate::store::is_url;
use crate::time::{Zone, now_ns};
use crate::trust::pins;
use crate::{Failure, Outcome};

pub(crate) fn run(arguments: &ClockArguments) -> Result<Outcome, Failure> {
    let zone = Zone::new(arguments.tz.as_deref())?;
    let view = is_url(&arguments.archive).then(|| View::open(&arguments.archive, |_| true)).transpose()?;
    let root = view.as_ref().map_or(arguments.archive.as_path(), |view| view.root());
    let corrections = Corrections::of_archive(root, &pins(&arguments.trusting)?)
        .map_err(|error| Failure::Damaged(error.to_string()))?;
    let mut to = stdout();
    if arguments.json {
        corrections.stretches.iter().try_for_each(|stretch| json_line(&mut to, &as_json(stretch, &zone)))?;
    } else {
        let mut table = Table::new(&["gateway", "boot", "segments", "from", "to", ">correction, s", "clock"]);
        corrections.stretches.iter().for_each(|stretch| table.push(as_row(stretch, &zone)));
        table.write(&mut to)?;
    }
    to.flush()?;
    if !corrections.damage.is_empty() {
        return Err(Failure::Damaged(format!("not all is known: {}", corrections.damage.join("; "))));
    }
    if corrections.stretches.is_empty() {
        let waiting = unsealed(root, |_| false).unwrap_or_default();
        let now_ns = now_ns();
        let said: Vec<String> = waiting.iter().map(|one| one.describe(now_ns)).collect();
        return Err(Failure::Damaged(if said.is_empty() {
            "nothing is sealed in this archive".to_owned()
        } else {
            said.join("; ")
        }));
    }
    Ok(Outcome::Done)
}

fn correction_s(stretch: &Stretch) -> f64 {
    stretch.correction_ns as f64 / 1e9
}

fn as_row(stretch: &Stretch, zone: &Zone) -> Vec<String> {
    vec![
        stretch.gateway.clone(),
        stretch.boot.chars().take(8).collect(),
        format!("{}-{}", stretch.sequences.start(), stretch.sequences.end()),
        zone.show(stretch.from_ns),
        zone.show(stretch.to_ns),
        format!("{:+.3}", correction_s(stretch)),
        if stretch.is_synchronised { "synchronised" } else { "never synchronised: error unknown" }.to_owned(),
    ]
}

fn as_json(stretch: &Stretch, zone: &Zone) -> Map<String, Value> {
    let mut object = Map::new();
    for (name, value) in [
        ("gateway", json!(stretch.gateway)),
        ("boot", json!(stretch.boot)),
        ("first_sequence", json!(stretch.sequences.start())),
        ("last_sequence", json!(stretch.sequences.end())),
        ("from", json!(zone.show(stretch.from_ns))),
        ("to", json!(zone.show(stretch.to_ns))),
        ("correction_s", json!(correction_s(stretch))),
        ("synchronised", json!(stretch.is_synchronised)),
    ] {
        object.insert(name.to_owned(), value);
    }
    object
}
