//! What a verification found, and what its verdict is.

use std::collections::BTreeSet;

use super::Standing;
use crate::chain::{Deletion, Remark, Severity};
use crate::unrecorded::Unrecorded;

/// What kind of thing was found. The worst decides the verdict; later ones are worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Worth knowing: the gateway is still writing, or died before a line.
    Notice,
    /// An audit log whose head nobody outside of it holds: its end, or all of it, may have been exchanged.
    Unanchored,
    /// No segment is sealed yet: there is nothing that could be proved.
    Unsealed,
    /// Files are elsewhere by a receipt, and were not looked for there.
    Moved,
    /// A receipt says what is not so, or of files that no chain here has.
    Receipt,
    /// Times that need an explanation the archive does not give.
    Doubt,
    /// The end of a chain or log was cut off.
    Cut,
    /// Something was changed, removed, or done without the right to.
    Damage,
}

/// What an archive is, by the worst that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Whole,
    Unanchored,
    Unsealed,
    Moved,
    Receipts,
    Doubtful,
    Cut,
    Damaged,
}

impl Verdict {
    /// As JSON has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Whole => "ok",
            Self::Unanchored => "audit_unanchored",
            Self::Unsealed => "nothing_sealed",
            Self::Moved => "moved",
            Self::Receipts => "receipts_unproved",
            Self::Doubtful => "doubtful",
            Self::Cut => "cut",
            Self::Damaged => "damaged",
        }
    }

    /// As people read it.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Unanchored => "whole, but for an audit log that nothing outside of it vouches for",
            Self::Unsealed => "NOTHING IS SEALED YET: there is nothing that could be proved",
            Self::Moved => "NOT ALL HERE: files were moved, and were not looked for where they are",
            Self::Receipts => "NOT WHOLE: receipts say what is not so",
            Self::Doubtful => "DOUBTFUL: times need an explanation",
            Self::Cut => "NOT WHOLE: the end was cut off",
            Self::Damaged => "NOT WHOLE",
        }
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub kind: Kind,
    /// Manifest or segment, relative to the archive.
    pub file: String,
    /// Line of a manifest, from 1.
    pub line: Option<usize>,
    pub what: String,
}

/// What a verification saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub gateways: usize,
    pub lines: usize,
    /// Of these, lines after the last one that the gateway is trusted to have written.
    pub untrusted: usize,
    pub files: usize,
    pub bytes: u64,
    /// Files that are gone and that a line deletes by right.
    pub deleted: usize,
    /// Every line that deletes, by gateway.
    pub deletions: Vec<(String, Deletion)>,
    /// Files that are gone from here, and for which there is a receipt from elsewhere.
    pub moved: usize,
    /// Of these, files that are there as their lines say.
    pub shown: usize,
    /// Where the others are, and have to be verified.
    pub moved_to: BTreeSet<String>,
    pub checkpoints: usize,
    /// Wrapped keys that were opened and are the right ones.
    pub keys: usize,
    /// Files whose rows are those their signed root stands for.
    pub rows_files: usize,
    /// Files of rows that were sealed before rows had a root: none of their rows can be proved alone.
    pub without_rows_root: usize,
    /// What is proved of each chain, and by whom.
    pub standings: Vec<Standing>,
    /// Times of which not everything was recorded, as a search says it ([`crate::unrecorded`]). That is no finding: files are as they were sealed.
    pub unrecorded: Vec<Unrecorded>,
    pub findings: Vec<Finding>,
}

impl Report {
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self.findings.iter().map(|finding| finding.kind).max() {
            None | Some(Kind::Notice) => Verdict::Whole,
            Some(Kind::Unanchored) => Verdict::Unanchored,
            Some(Kind::Unsealed) => Verdict::Unsealed,
            Some(Kind::Moved) => Verdict::Moved,
            Some(Kind::Receipt) => Verdict::Receipts,
            Some(Kind::Doubt) => Verdict::Doubtful,
            Some(Kind::Cut) => Verdict::Cut,
            Some(Kind::Damage) => Verdict::Damaged,
        }
    }

    /// Whether nothing is wrong and everything is here. Notices are not wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.verdict() == Verdict::Whole
    }

    pub(crate) fn add(&mut self, kind: Kind, file: &str, line: Option<usize>, what: impl Into<String>) {
        self.findings.push(Finding { kind, file: file.to_owned(), line, what: what.into() });
    }

    pub(super) fn remark(&mut self, file: &str, remark: Remark) {
        let kind = match remark.severity {
            Severity::Notice => Kind::Notice,
            Severity::Doubt => Kind::Doubt,
            Severity::Damage => Kind::Damage,
        };
        self.add(kind, file, remark.line.and_then(|line| usize::try_from(line).ok()), remark.what);
    }
}
