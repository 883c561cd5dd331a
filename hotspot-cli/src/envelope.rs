//! What an answer is: what was asked, what was searched, what was not recorded, how far the clocks are to be trusted, and a verdict.
//!
//! One envelope for `find`, `who`, `decode` and `coverage`, in words on standard error, as the last line of JSON, and as a companion
//! beside a file. It decides the exit code, so that words and code cannot differ. Nothing is called "nothing found" unless everything
//! that was searched was recorded and could be read.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hotspot_archive::filter::Filter;
use hotspot_archive::manifest::hash_file;
use hotspot_archive::output_file::OutputFile;
use hotspot_archive::search::{Archive, Clock, Extent, Interval, Seen};
use serde_json::{Map, Value, json};

use crate::output::{Output, json_line, say};
use crate::time::{Zone, duration, now_ns, utc};
use crate::{Failure, Outcome};

/// Things of a kind that words name one by one; JSON has all.
const NAMED_MAX: usize = 3;
/// Gaps and files that are said one by one.
const SAID_MAX: usize = 20;

/// What the answer comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Found,
    /// And everything that was searched was recorded and could be read.
    NothingFound,
    /// It may have been there: not everything was recorded.
    NotRecorded,
    /// No row of the archive has the public address that was asked for.
    NotAnAddress,
    /// Not everything could be searched.
    Unreadable,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::NothingFound => "nothing_found",
            Self::NotRecorded => "not_recorded",
            Self::NotAnAddress => "not_an_address",
            Self::Unreadable => "unreadable",
        }
    }

    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Found => Outcome::Done,
            Self::NothingFound => Outcome::NothingFound,
            Self::NotAnAddress => Outcome::WrongQuestion,
            Self::NotRecorded | Self::Unreadable => Outcome::Damaged,
        }
    }
}

/// The envelope of an answer.
pub(crate) struct Envelope {
    command: &'static str,
    /// What was asked, by name.
    asked: Map<String, Value>,
    /// From when to when was searched; `None` where the archive begins or ends.
    from_ns: Option<i64>,
    to_ns: Option<i64>,
    pub(crate) extents: Vec<Extent>,
    /// Segments, or files, that were looked at.
    pub(crate) segments: usize,
    pub(crate) not_recorded: Vec<String>,
    pub(crate) not_searched: Vec<String>,
    pub(crate) not_trusted: usize,
    pub(crate) slow: Vec<String>,
    /// What else is to be known of the answer.
    pub(crate) remarks: Vec<String>,
    pub(crate) found: usize,
    /// What is counted: one, and several.
    unit: [&'static str; 2],
    /// The search ended before its end.
    pub(crate) is_cut: bool,
    /// The public addresses that were asked for, and that are none of these gateways'.
    pub(crate) strangers: Vec<String>,
    /// Where nothing was found is no answer, but a fault: `coverage`.
    pub(crate) wants_whole: bool,
    /// Files were asked for, not an archive: what they hold is the answer, also where it is nothing.
    pub(crate) is_of_files: bool,
    zone: Zone,
}

impl Envelope {
    pub(crate) fn new(command: &'static str, unit: [&'static str; 2], zone: Zone) -> Self {
        Self {
            command,
            asked: Map::new(),
            from_ns: None,
            to_ns: None,
            extents: Vec::new(),
            segments: 0,
            not_recorded: Vec::new(),
            not_searched: Vec::new(),
            not_trusted: 0,
            slow: Vec::new(),
            remarks: Vec::new(),
            found: 0,
            unit,
            is_cut: false,
            strangers: Vec::new(),
            wants_whole: false,
            is_of_files: false,
            zone,
        }
    }

    /// Notes something that was asked.
    pub(crate) fn asked(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.asked.insert(name.to_owned(), value.into());
        self
    }

    /// The same, where it was.
    pub(crate) fn asked_some(self, name: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.asked(name, value),
            None => self,
        }
    }

    /// Notes what of an archive a question looks at.
    pub(crate) fn over(mut self, archive: &Archive, interval: Interval, filter: &Filter) -> Self {
        let (from_ns, to_ns) = filter.times();
        self.from_ns = Some(interval.from_ns.max(from_ns)).filter(|ns| *ns != i64::MIN);
        self.to_ns = Some(interval.to_ns.min(to_ns)).filter(|ns| *ns != i64::MAX);
        self.extents = archive.extents(interval, filter);
        self.segments = self.extents.iter().map(|extent| extent.segments).sum();
        let now_ns = now_ns();
        self.not_recorded.extend(archive.unsealed(interval, filter).map(|one| one.describe(now_ns)));
        self
    }

    /// Takes over what a search saw beside its hits.
    pub(crate) fn see(&mut self, found: usize, seen: &Seen) {
        self.found = found;
        self.not_searched.extend(seen.damage.iter().cloned());
        let gaps = seen.gaps.iter().map(ToString::to_string);
        self.not_recorded.extend(gaps);
        self.not_trusted = seen.untrusted;
        self.slow.clone_from(&seen.unindexed);
    }

    pub(crate) fn verdict(&self) -> Verdict {
        let is_whole = self.not_recorded.is_empty();
        if !self.not_searched.is_empty() {
            Verdict::Unreadable
        } else if self.is_of_files || self.found > 0 && (is_whole || !self.wants_whole) {
            Verdict::Found
        } else if !is_whole || self.wants_whole {
            Verdict::NotRecorded
        } else if !self.strangers.is_empty() {
            Verdict::NotAnAddress
        } else {
            Verdict::NothingFound
        }
    }

    /// Ends an answer: the last line of JSON, the words, the companion of a file.
    pub(crate) fn end(mut self, to: Output, form: Form, files: Option<&Files>) -> Result<Outcome, Failure> {
        if self.is_cut {
            self.remarks.push(
                "the search ended at its limit: there may be more, and what else was not recorded was not looked for"
                    .to_owned(),
            );
        }
        let mut to = to;
        if form == Form::Json {
            json_line(&mut to, &json!({ "answer": self.as_json(None) }))?;
        }
        to.finish()?;
        if let Some(files) = files {
            self.write_companion(files)?;
            self.remarks.push(format!(
                "written to {}, and what it is to {}",
                files.answer.display(),
                files.companion.display()
            ));
        }
        self.say();
        Ok(self.verdict().outcome())
    }

    /// Describes a file beside it, with its hash.
    fn write_companion(&self, files: &Files) -> Result<(), Failure> {
        let failed = |error: io::Error| {
            Failure::Output(io::Error::other(format!("{} cannot be written: {error}", files.companion.display())))
        };
        let (sha256, bytes) = hash_file(&files.answer).map_err(failed)?;
        let name = files.answer.file_name().unwrap_or_default().to_string_lossy();
        let file = json!({"name": name, "bytes": bytes, "sha256": sha256});
        let companion = OutputFile::begin(&files.companion, files.may_replace).map_err(failed)?;
        let text = serde_json::to_string_pretty(&json!({ "answer": self.as_json(Some(file)) }));
        let text = text.map_err(|error| failed(error.into()))?;
        let written = companion.file().and_then(|mut file| writeln!(file, "{text}"));
        written.and_then(|()| companion.commit()).map_err(failed)
    }

    /// One shape for all commands; docs/search.md says what is in it.
    fn as_json(&self, file: Option<Value>) -> Value {
        let time = |ns: Option<i64>| ns.map(utc);
        let gateways: Vec<Value> = self.extents.iter().map(gateway).collect();
        let is_complete = self.not_recorded.is_empty() && self.not_searched.is_empty() && !self.is_cut;
        let mut answer = json!({
            "command": self.command,
            "verdict": self.verdict().word(),
            "sentence": self.sentence(),
            "found": self.found,
            "of": self.unit[1],
            "complete": is_complete,
            "asked": self.asked,
            "searched": {
                "from": time(self.from_ns), "to": time(self.to_ns), "segments": self.segments, "gateways": gateways,
            },
            "not_recorded": self.not_recorded,
            "not_searched": self.not_searched,
            "not_trusted": self.not_trusted,
            "remarks": self.remarks,
            "software": concat!("hotspot ", env!("CARGO_PKG_VERSION")),
        });
        if let (Some(file), Value::Object(answer)) = (file, &mut answer) {
            answer.insert("file".to_owned(), file);
        }
        answer
    }

    /// Says it to a person.
    fn say(&self) {
        said("not searched", &self.not_searched);
        if self.not_trusted > 0 {
            say(format!(
                "not trusted: {} segments were written after the last line their gateway is trusted until; their rows are marked",
                self.not_trusted
            ));
        }
        said("not everything was recorded", &self.not_recorded);
        if let Some(first) = self.slow.first() {
            let others = self.slow.len() - 1;
            let others = if others == 0 { String::new() } else { format!(", and {others} more") };
            say(format!("slower than it could be, searched without an index: {first}{others}"));
        }
        self.remarks.iter().for_each(say);
        self.clocks().iter().for_each(say);
        say(self.sentence());
    }

    /// The verdict in words.
    fn sentence(&self) -> String {
        let (found, searched) = (self.count(), self.searched());
        match self.verdict() {
            Verdict::Found if self.wants_whole => format!("everything was recorded, {found}: {searched}"),
            Verdict::Found if self.is_of_files => format!("{} in {searched}", self.number()),
            Verdict::Found if self.not_recorded.is_empty() => format!("{found}: {searched}"),
            Verdict::Found => format!("{found}, and NOT EVERYTHING WAS RECORDED: {searched}"),
            Verdict::NothingFound => format!("nothing found, and everything searched was recorded: {searched}"),
            Verdict::NotRecorded if self.found == 0 && !self.wants_whole => {
                format!("nothing found, but NOT EVERYTHING WAS RECORDED: {searched}")
            }
            Verdict::NotRecorded => format!("NOT EVERYTHING WAS RECORDED: {searched}"),
            Verdict::NotAnAddress => format!("{}; searched: {searched}", stranger(&self.strangers)),
            Verdict::Unreadable => format!("{found}, but NOT EVERYTHING COULD BE SEARCHED: {searched}"),
        }
    }

    fn count(&self) -> String {
        if self.found == 0 { "nothing found".to_owned() } else { format!("{} found", self.number()) }
    }

    fn number(&self) -> String {
        format!("{} {}", self.found, self.unit[usize::from(self.found != 1)])
    }

    /// From when to when was searched, by whose segments.
    fn searched(&self) -> String {
        let unit = if self.is_of_files { "file" } else { "segment" };
        let segments = format!("{} {unit}{}", self.segments, if self.segments == 1 { "" } else { "s" });
        if self.is_of_files {
            return segments;
        }
        if self.extents.is_empty() {
            return if self.segments == 0 { "no segment lies in that time".to_owned() } else { segments };
        }
        let from_ns = self.from_ns.or_else(|| self.extents.iter().map(|extent| extent.from_ns).min());
        let to_ns = self.to_ns.or_else(|| self.extents.iter().map(|extent| extent.to_ns).max());
        let show = |ns: Option<i64>| ns.map(|ns| self.zone.show_briefly(ns)).unwrap_or_default();
        let gateways = named(self.extents.iter().map(|extent| extent.gateway.as_str()));
        let word = if self.extents.len() == 1 { "gateway" } else { "gateways" };
        format!("{} to {}, {word} {gateways}, {segments}", show(from_ns), show(to_ns))
    }

    /// What is to be said of clocks, those that say the same together.
    fn clocks(&self) -> Vec<String> {
        let mut said: Vec<(String, Vec<&str>)> = Vec::new();
        for extent in &self.extents {
            let Some(what) = describe_clock(extent.clock) else { continue };
            match said.iter_mut().find(|(other, _)| *other == what) {
                Some((_, gateways)) => gateways.push(&extent.gateway),
                None => said.push((what, vec![&extent.gateway])),
            }
        }
        said.into_iter()
            .map(|(what, gateways)| format!("the clock of {} {what}", named(gateways.into_iter())))
            .collect()
    }
}

/// Says things of a kind, and how many more there are.
fn said(what: &str, things: &[String]) {
    things.iter().take(SAID_MAX).for_each(|thing| say(format!("{what}: {thing}")));
    if things.len() > SAID_MAX {
        say(format!("{what}: {} more; --json names them all", things.len() - SAID_MAX));
    }
}

/// What is said of public addresses that are none of these gateways'.
pub(crate) fn stranger(addresses: &[String]) -> String {
    let (verb, it) = if addresses.len() == 1 { ("is not an address", "it") } else { ("are no addresses", "them") };
    let names = named(addresses.iter().map(String::as_str));
    format!("{names} {verb} of these gateways: no row of this archive has {it} as a public address")
}

fn named<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    let text = names.take(NAMED_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

fn gateway(extent: &Extent) -> Value {
    let s = |ns: i64| ns as f64 / 1e9;
    let clock = match extent.clock {
        Clock::Synchronised { least_ns, most_ns } => {
            json!({"synchronised": true, "correction_s": [s(least_ns), s(most_ns)]})
        }
        Clock::Never => json!({"synchronised": false, "correction_s": null}),
        Clock::Unknown => json!({"synchronised": null, "correction_s": null}),
    };
    json!({
        "gateway": extent.gateway, "site": extent.site, "segments": extent.segments,
        "from": utc(extent.from_ns), "to": utc(extent.to_ns), "clock": clock,
    })
}

/// What is wrong with a clock, or not known of it.
pub(crate) fn describe_clock(clock: Clock) -> Option<String> {
    match clock {
        Clock::Synchronised { least_ns: 0, most_ns: 0 } => None,
        Clock::Synchronised { least_ns, most_ns } => {
            let off_ns = least_ns.saturating_abs().max(most_ns.saturating_abs());
            Some(format!(
                "was off by up to {} before it was set: `hotspot clock` says what is to be added",
                duration(off_ns)
            ))
        }
        Clock::Never => Some("was never synchronised: its error is unknown".to_owned()),
        Clock::Unknown => Some("may have been wrong: whether it was synchronised was not recorded".to_owned()),
    }
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Rows of JSON, of which the envelope is the last.
    Json,
    /// Anything that has no room for it.
    Other,
}

/// An answer in a file, and what describes it.
pub(crate) struct Files {
    answer: PathBuf,
    companion: PathBuf,
    may_replace: bool,
}

impl Files {
    /// Whether both may be written, asked before anything is searched.
    pub(crate) fn check(answer: &Path, form: Form, may_replace: bool) -> Result<Option<Self>, Failure> {
        let mut companion = answer.to_path_buf().into_os_string();
        companion.push(".json");
        let files = Self { answer: answer.to_path_buf(), companion: companion.into(), may_replace };
        let has_companion = form != Form::Json;
        for path in [&files.answer].into_iter().chain(has_companion.then_some(&files.companion)) {
            OutputFile::check(path, may_replace).map_err(|error| {
                let is_there = error.kind() == io::ErrorKind::AlreadyExists;
                let hint = if is_there { "; --force replaces it" } else { "" };
                Failure::Usage(format!("{} is not written: {error}{hint}", path.display()))
            })?;
        }
        // A directory that is not there is noticed before a long search, too.
        let dir = answer.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::metadata(dir).map_err(|error| Failure::Usage(format!("{} is not written: {error}", answer.display())))?;
        Ok(has_companion.then_some(files))
    }
}
