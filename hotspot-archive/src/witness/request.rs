//! What a witness is asked: the body of C2SP `tlog-witness` add-checkpoint, and before it the lines that began new signing keys.
//!
//! A request is text: `epoch LINE BASE64 HASH…` lines (ours; none where the key has not changed since), `old SIZE`, the hashes of the consistency proof,
//! an empty line, the signed note. Without the first it is a C2SP request to the byte.

use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};

use super::Refusal;
use crate::chain::{Beside, ChainCheck, Record, Severity};
use crate::checkpoint::{SignedCheckpoint, parse_checkpoint};
use crate::checkpoints;
use crate::cosignature::{TreeHead, parse_size};
use crate::manifest::{Event, EventLine, ManifestError};
use crate::merkle::{Hash, Tree, consistency, inclusions, leaf_hash};
use crate::note::Note;
use crate::pieces;
use crate::signing::read_public_key;

/// Longest request that is read: some ten years of epochs that last a day.
pub const REQUEST_BYTES_MAX: usize = 8 << 20;
/// Most epochs in a request.
pub const EPOCHS_MAX: usize = 4096;
/// Most hashes of a proof: one for each bit of a size.
const PROOF_MAX: usize = 63;

/// A line that begins an epoch, and the proof that it is in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochLine {
    /// Its number, from 1.
    pub line: u64,
    pub text: String,
    pub path: Vec<Hash>,
}

/// What a witness is asked to sign for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub epochs: Vec<EpochLine>,
    /// The tree that the witness signed for last, by its size.
    pub old: u64,
    pub proof: Vec<Hash>,
    pub note: Note,
}

impl Request {
    /// Reads a request.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let bad = |what: &str| Refusal::Malformed(what.to_owned());
        if text.len() > REQUEST_BYTES_MAX {
            return Err(bad("it is longer than 8 MiB"));
        }
        let (top, note) = text.split_once("\n\n").ok_or_else(|| bad("there is no empty line before the checkpoint"))?;
        let note = Note::parse(note).ok_or_else(|| bad("what follows the empty line is no signed note"))?;
        let mut lines = top.split('\n').peekable();
        let mut epochs = Vec::new();
        while let Some(epoch) = lines.next_if(|line| line.starts_with("epoch ")) {
            epochs.push(parse_epoch(epoch).ok_or_else(|| bad("an epoch line is none"))?);
            if epochs.len() > EPOCHS_MAX {
                return Err(bad("there are more than 4096 epochs; ask for fewer lines at a time"));
            }
        }
        let old = lines.next().and_then(|line| line.strip_prefix("old ")).and_then(parse_size);
        let old = old.ok_or_else(|| bad("there is no line `old SIZE`"))?;
        let proof =
            lines.map(parse_hash).collect::<Option<Vec<_>>>().ok_or_else(|| bad("a line of the proof is no hash"))?;
        if proof.len() > PROOF_MAX {
            return Err(bad("there are more than 63 hashes"));
        }
        Ok(Self { epochs, old, proof, note })
    }

    /// The request as text.
    #[must_use]
    pub fn text(&self) -> String {
        let hash = |hash: &Hash| STANDARD.encode(hash);
        let epochs = self.epochs.iter().map(|epoch| {
            let path: Vec<String> = epoch.path.iter().map(|at| format!(" {}", hash(at))).collect();
            format!("epoch {} {}{}\n", epoch.line, STANDARD.encode(&epoch.text), path.concat())
        });
        let proof = self.proof.iter().map(|at| format!("{}\n", hash(at)));
        format!("{}old {}\n{}\n{}", epochs.collect::<String>(), self.old, proof.collect::<String>(), self.note.bytes())
    }

    /// The head that is to be signed for.
    pub(super) fn head(&self) -> Result<TreeHead, Refusal> {
        let bad =
            || Refusal::Malformed("the note is no checkpoint: origin, size and root, and nothing else".to_owned());
        TreeHead::parse(&self.note.text).ok_or_else(bad)
    }
}

fn parse_hash(line: &str) -> Option<Hash> {
    Hash::try_from(STANDARD.decode(line).ok()?).ok()
}

fn parse_epoch(line: &str) -> Option<EpochLine> {
    let mut words = line.strip_prefix("epoch ")?.split(' ');
    let number = parse_size(words.next()?)?;
    let text = String::from_utf8(STANDARD.decode(words.next()?).ok()?).ok()?;
    let path = words.map(parse_hash).collect::<Option<Vec<_>>>()?;
    (path.len() <= PROOF_MAX).then_some(EpochLine { line: number, text, path })
}

/// The head of these leaves, and the proof that they begin with the first `old`. Fewer leaves than those were cut.
pub(super) fn grown(origin: String, leaves: &[Hash], old: u64) -> Result<(TreeHead, Vec<Hash>, u64), Refusal> {
    let mut tree = Tree::default();
    leaves.iter().for_each(|leaf| tree.push(*leaf));
    let proof = usize::try_from(old).ok().and_then(|old| consistency(leaves, old));
    let Some(proof) = proof else {
        let why = format!("it has {} lines, and had {old}: its end was cut off", leaves.len());
        return Err(Refusal::Inconsistent { origin, why });
    };
    Ok((TreeHead { origin, size: tree.len(), root: tree.root() }, proof, old))
}

/// A chain as requests are made from it: its leaves, the lines that begin epochs, and the newest checkpoint with a note that fits.
pub struct Source {
    leaves: Vec<Hash>,
    epochs: Vec<(u64, String)>,
    newest: Option<SignedCheckpoint>,
}

impl Source {
    /// Reads a gateway's chain where it lies. Without a key that of the archive is taken, which whoever wrote the archive wrote.
    pub fn open(
        archive: &Path,
        gateway: &str,
        first_key: Option<VerifyingKey>,
        find: impl FnMut(u64, String),
    ) -> Result<Self, ManifestError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ManifestError::Io { operation: "read", path, source }
        };
        let chain = pieces::chains(archive)?.into_iter().find(|chain| chain.gateway == gateway);
        let chain =
            chain.ok_or_else(|| failed(&archive.join(pieces::directory(gateway)))(io::ErrorKind::NotFound.into()))?;
        let key = first_key.map_or_else(|| read_public_key(&chain.public_key()), Ok)?;
        let text = chain.read().map_err(failed(&chain.path))?;
        let kept = checkpoints::read(archive, gateway).map_err(failed(&archive.join(checkpoints::path(gateway))))?;
        Ok(Self::read(gateway, key, &text, &kept, find))
    }

    /// Reads the lines of a chain and the checkpoints that lie beside it. What is wrong with a line goes to `find`.
    #[must_use]
    pub fn read(
        gateway: &str,
        first_key: VerifyingKey,
        text: &[u8],
        checkpoints: &[String],
        mut find: impl FnMut(u64, String),
    ) -> Self {
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut check = ChainCheck::new(gateway, first_key, Beside::default());
        let (mut leaves, mut epochs) = (Vec::new(), Vec::new());
        let lines = text[..whole].strip_suffix(b"\n").into_iter().flat_map(|text| text.split(|byte| *byte == b'\n'));
        for (number, line) in (1..).zip(lines) {
            leaves.push(leaf_hash(&Sha256::digest(line)));
            let record = check.push(line, |remark| {
                if remark.severity == Severity::Damage {
                    find(number, remark.what);
                }
            });
            if let Some(Record::Event(EventLine { event: Event::Epoch { .. }, .. })) = record {
                epochs.push((number, String::from_utf8_lossy(line).into_owned()));
            }
        }
        let fits = |kept: &SignedCheckpoint| {
            let size = kept.note().and_then(|(head, _)| usize::try_from(head.size).ok());
            size.is_some_and(|size| size <= leaves.len())
                && kept.checkpoint.gateway == gateway
                && check.compare(kept).is_none()
        };
        let newest = checkpoints.iter().filter_map(|line| parse_checkpoint(line)).filter(fits);
        let newest = newest.max_by_key(|kept| kept.checkpoint.line);
        Self { leaves, epochs, newest }
    }

    /// Lines of the newest checkpoint.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.newest.as_ref().map(|kept| kept.checkpoint.line)
    }

    /// A request that goes on from `old` lines. `None`: there is no checkpoint of so many lines.
    #[must_use]
    pub fn request(&self, old: u64) -> Option<Request> {
        let (head, note) = self.newest.as_ref()?.note()?;
        let leaves = self.leaves.get(..usize::try_from(head.size).ok()?)?;
        let proof = consistency(leaves, usize::try_from(old).ok()?)?;
        // The witness may have signed for a line that ends an epoch before it knew the next key.
        let news: Vec<_> = self.epochs.iter().filter(|(line, _)| *line >= old && *line <= head.size).collect();
        let places = news.iter().map(|(line, _)| usize::try_from(line - 1)).collect::<Result<Vec<_>, _>>().ok()?;
        let paths = inclusions(leaves.to_vec(), &places)?;
        let epochs = news.into_iter().zip(paths);
        let epochs = epochs.map(|((line, text), path)| EpochLine { line: *line, text: text.clone(), path }).collect();
        Some(Request { epochs, old, proof, note: note.clone() })
    }
}
