//! Files that no line vouches for: somebody put them there, or their line is still to come.

use std::collections::BTreeSet;

use super::{Kind, Report};
use crate::layout::{Class, INDEX};
use crate::manifest::from_hex;
use crate::place::Place;

/// Wrapped keys that were added after sealing lie beside what they open: `x.parquet.<16 digits>.age`.
fn is_added_sidecar(relative: &str, vouched: &BTreeSet<String>) -> bool {
    let Some((segment, id)) = relative.strip_suffix(".age").and_then(|rest| rest.rsplit_once('.')) else {
        return false;
    };
    id.len() == 16 && from_hex(id).is_some() && vouched.contains(segment)
}

/// A chain, whose next sequences may have files before the line that names them.
pub(super) struct Unnamed {
    gateway: String,
    /// The sequence that comes next.
    next: u64,
    is_shipped: bool,
}

/// Sequences whose files a shipper may have brought before their lines: those of one piece of the chain, and of some that go with it.
const SHIPPED_AHEAD_MAX: u64 = 256;

/// What a file that no line names may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ahead {
    /// Its line is still to come.
    Next,
    /// So far behind the end of the chain that lines must be missing.
    Far,
    /// Not of this gateway, or of a sequence whose line is there.
    No,
}

impl Unnamed {
    pub(super) fn new(gateway: &str, next: u64, is_shipped: bool) -> Self {
        Self { gateway: gateway.to_owned(), next, is_shipped }
    }

    /// `<gateway>-<10 digits>.<extension>`, its key, or what is half written of them (`….tmp`, `…#1`).
    fn judge(&self, name: &str, extension: &str) -> Ahead {
        let rest = name.strip_prefix(&self.gateway).and_then(|rest| rest.strip_prefix('-'));
        let Some((digits, kind)) = rest.and_then(|rest| rest.split_once('.')) else { return Ahead::No };
        let kind = kind.strip_suffix(".tmp").or(kind.split_once('#').map(|(kind, _)| kind)).unwrap_or(kind);
        let is_kind = kind.strip_suffix(".age").unwrap_or(kind) == extension;
        let is_number = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let sequence: Option<u64> = digits.parse().ok();
        let Some(ahead) = sequence.and_then(|sequence| sequence.checked_sub(self.next)) else { return Ahead::No };
        match (is_kind && is_number, self.is_shipped) {
            (true, true) if ahead <= SHIPPED_AHEAD_MAX => Ahead::Next,
            (true, false) if ahead == 0 => Ahead::Next,
            (true, true) => Ahead::Far,
            (true | false, false) | (false, true) => Ahead::No,
        }
    }
}

/// Files that no line vouches for.
pub(super) fn find_extra_files(
    place: &dyn Place,
    vouched: &BTreeSet<String>,
    unnamed: &[Unnamed],
    report: &mut Report,
) -> std::io::Result<()> {
    for (class, extension) in Class::ALL.map(|class| (class.label(), "parquet")).into_iter().chain([(INDEX, "index")]) {
        for relative in place.list(class)? {
            if vouched.contains(&relative) || is_added_sidecar(&relative, vouched) {
                continue;
            }
            let name = relative.rsplit_once('/').map_or(relative.as_str(), |(_, name)| name);
            let ahead: Vec<Ahead> = unnamed.iter().map(|unnamed| unnamed.judge(name, extension)).collect();
            if ahead.contains(&Ahead::Next) {
                let what = "is not yet in the manifest: it is being sealed or shipped, or that was cut short";
                report.add(Kind::Notice, &relative, None, what);
            } else if ahead.contains(&Ahead::Far) {
                let what = "lies far behind the end of its chain: lines before it were cut off";
                report.add(Kind::Cut, &relative, None, what);
            } else {
                report.add(Kind::Damage, &relative, None, "is in no manifest line");
            }
        }
    }
    Ok(())
}
