//! What is proved of a chain, by whom, and since when: the one sentence that a verification ends with.

use hotspot_core::WallNs;

use crate::policy::DAY_NS;

/// Who says that a chain was so at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// The gateway itself, in a checkpoint that was kept elsewhere. Its time is the gateway's own.
    Gateway,
    /// A witness, by the name of its key.
    Witness(String),
    /// A time-stamping authority, by the name in its certificate.
    Authority(String),
}

impl By {
    /// `gateway`, `witness` or `authority`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Witness(_) => "witness",
            Self::Authority(_) => "authority",
        }
    }

    /// The name of a witness or an authority.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Gateway => None,
            Self::Witness(name) | Self::Authority(name) => Some(name),
        }
    }

    pub(super) fn phrase(&self) -> String {
        match self.name() {
            Some(name) => format!("{} {name}", self.word()),
            None => "the gateway's own word".to_owned(),
        }
    }
}

/// That the lines up to this one were at this time as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    pub line: u64,
    pub at_ns: WallNs,
    pub by: By,
}

/// Everything that was attested of one chain or audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The gateway, or where the audit log lies.
    pub of: String,
    /// Lines that are there.
    pub lines: u64,
    /// By line, then by time.
    pub attestations: Vec<Attestation>,
}

impl Standing {
    pub(super) fn new(of: &str, lines: u64, mut attestations: Vec<Attestation>) -> Self {
        attestations.sort_by(|one, other| (one.line, one.at_ns, &one.by).cmp(&(other.line, other.at_ns, &other.by)));
        attestations.dedup();
        Self { of: of.to_owned(), lines, attestations }
    }

    /// The first line that says it was written after somebody else had seen it. A day is allowed: clocks are wrong.
    #[must_use]
    pub fn from_the_future(&self, written: &[(u64, WallNs)]) -> Option<(u64, &Attestation)> {
        let outside = || self.attestations.iter().filter(|one| one.by != By::Gateway);
        written.iter().find_map(|(line, written_ns)| {
            let seen = outside().find(|one| one.line >= *line && *written_ns > one.at_ns.saturating_add(DAY_NS))?;
            Some((*line, seen))
        })
    }

    /// The last line for which somebody else vouches, and who did so first.
    #[must_use]
    pub fn outside(&self) -> Option<&Attestation> {
        let outside = self.attestations.iter().filter(|one| one.by != By::Gateway);
        let last = outside.clone().next_back()?.line;
        outside.filter(|one| one.line == last).min_by_key(|one| one.at_ns)
    }

    /// What is proved by whom, in one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Some(last) = self.outside() else {
            let kept = match self.attestations.last() {
                Some(kept) => format!(
                    " (a checkpoint of {} that was kept elsewhere fits, up to line {})",
                    time(kept.at_ns),
                    kept.line
                ),
                None => String::new(),
            };
            return format!("{}: {} lines by the gateway's own word, and nobody else's{kept}", self.of, self.lines);
        };
        let mut text =
            format!("{}: unchanged since {} (line {}) by {}", self.of, time(last.at_ns), last.line, last.by.phrase());
        let before: Vec<_> =
            self.attestations.iter().filter(|one| one.by != By::Gateway && one.line < last.line).collect();
        match before.as_slice() {
            [] => {}
            [first, rest @ ..] => {
                let (at, line, who) = (time(first.at_ns), first.line, first.by.phrase());
                text = format!("{text}; before that since {at} (line {line}) by {who}");
                if !rest.is_empty() {
                    text = format!("{text}, and {} times between", rest.len());
                }
            }
        }
        if last.line < self.lines {
            text = format!("{text}; after that, {} lines by the gateway's own word", self.lines - last.line);
        }
        text
    }
}

/// A time to the second, in UTC.
pub(super) fn time(at_ns: WallNs) -> String {
    let seconds = at_ns.div_euclid(1_000_000_000);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| format!("second {seconds} since 1970"), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: u64, at_s: i64, by: By) -> Attestation {
        Attestation { line, at_ns: at_s * 1_000_000_000, by }
    }

    #[test]
    fn a_line_that_was_seen_before_it_says_it_was_written_is_from_the_future() {
        let standing = |by| Standing::new("g", 9, vec![one(7, 1_000_000, by)]);
        let written = |s: i64| [(6, 900_000 * 1_000_000_000), (7, s * 1_000_000_000), (8, i64::MAX)];
        let witness = standing(By::Witness("w/1".into()));
        assert_eq!(
            witness.from_the_future(&written(1_000_000 + 86_400)),
            None,
            "a day is allowed; line 8 was not seen"
        );
        let (line, seen) = witness.from_the_future(&written(1_000_000 + 86_401)).unwrap();
        assert_eq!((line, seen.at_ns), (7, 1_000_000 * 1_000_000_000));
        let own = standing(By::Gateway);
        assert_eq!(own.from_the_future(&written(9_000_000)), None, "its own time says nothing of its own time");
    }

    #[test]
    fn the_sentence_says_who_vouches_for_what() {
        let at_s = 1_795_402_923;
        let witness = || By::Witness("w/1".into());
        assert_eq!(
            Standing::new("g", 9, Vec::new()).sentence(),
            "g: 9 lines by the gateway's own word, and nobody else's"
        );
        let kept = Standing::new("g", 9, vec![one(7, at_s, By::Gateway)]).sentence();
        assert!(
            kept.ends_with("(a checkpoint of 2026-11-23T03:02:03Z that was kept elsewhere fits, up to line 7)"),
            "{kept}"
        );
        let all = [
            one(412, at_s + 9, witness()),
            one(412, at_s, witness()),
            one(430, at_s + 50, By::Gateway),
            one(2, at_s - 100, By::Authority("Example TSA".into())),
            one(200, at_s - 50, witness()),
        ];
        assert_eq!(
            Standing::new("g", 450, all.to_vec()).sentence(),
            "g: unchanged since 2026-11-23T03:02:03Z (line 412) by witness w/1; before that since 2026-11-23T03:00:23Z (line 2) by authority \
             Example TSA, and 1 times between; after that, 38 lines by the gateway's own word"
        );
        let whole = Standing::new("g", 412, all[..2].to_vec()).sentence();
        assert_eq!(whole, "g: unchanged since 2026-11-23T03:02:03Z (line 412) by witness w/1");
    }
}
