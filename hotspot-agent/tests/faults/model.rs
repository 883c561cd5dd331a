//! A disk with a write-back cache, as hostile as the rules of POSIX let it be.
//!
//! What was flushed is there. Of what was not, any part may be: each write in pieces of a sector or of a byte, in any order across files,
//! the length of a file without its content, each name made, changed or removed in a directory that was not flushed, in order or not. A
//! flush that fails leaves pages that count as clean: what they held may be on the disk or not, and no later flush brings it there.
//! Not so hostile: what was never written reads as zeros, and renaming is atomic.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::tap::{FileId, Op};
use hotspot_tests::random::Random;

/// What reaches a disk whole or not at all, mostly.
const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Change {
    Write {
        at: usize,
        bytes: Rc<[u8]>,
    },
    SetLen(usize),
    /// By a write that was lost: only the length is still to come.
    Grow(usize),
}

#[derive(Clone, Debug, Default)]
struct Content {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    File(FileId),
    Dir,
}

#[derive(Clone, Debug)]
enum Naming {
    Set { name: PathBuf, node: Node },
    Move { from: PathBuf, to: PathBuf, node: Node },
    Remove { name: PathBuf },
}

#[derive(Clone, Debug, Default)]
struct Names {
    durable: BTreeMap<PathBuf, Node>,
    now: BTreeMap<PathBuf, Node>,
    /// With when each was, over all directories.
    pending: Vec<(usize, Naming)>,
}

/// The disk at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    dirs: BTreeMap<PathBuf, Names>,
    files: BTreeMap<FileId, Content>,
    clock: usize,
}

/// Files and directories as a power cut left them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    dirs: Vec<PathBuf>,
    files: Vec<(PathBuf, Vec<u8>)>,
}

fn split(path: &Path) -> (PathBuf, PathBuf) {
    (path.parent().unwrap_or(Path::new("")).to_path_buf(), path.file_name().unwrap_or_default().into())
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Disk {
    /// A disk on which all of `tree` is durable; with the numbers of its files.
    pub(crate) fn of(tree: &Tree) -> (Self, Vec<(PathBuf, FileId)>) {
        let mut disk =
            Self { dirs: BTreeMap::from([(PathBuf::new(), Names::default())]), files: BTreeMap::new(), clock: 0 };
        for dir in &tree.dirs {
            disk.name_durably(dir, Node::Dir);
            disk.dirs.insert(dir.clone(), Names::default());
        }
        let mut numbers = Vec::new();
        for (number, (path, content)) in (0..).zip(&tree.files) {
            disk.name_durably(path, Node::File(number));
            disk.files.insert(number, Content { durable: content.clone(), pending: Vec::new() });
            numbers.push((path.clone(), number));
        }
        (disk, numbers)
    }

    fn name_durably(&mut self, path: &Path, node: Node) {
        let (dir, name) = split(path);
        let names = self.dirs.get_mut(&dir).unwrap();
        names.now.insert(name.clone(), node);
        names.durable.insert(name, node);
    }

    fn rename(&mut self, path: &Path, naming: impl FnOnce(PathBuf, &Names) -> Naming) {
        let (dir, name) = split(path);
        let names = self.dirs.get_mut(&dir).unwrap();
        let naming = naming(name, names);
        apply(&mut names.now, &naming);
        names.pending.push((self.clock, naming));
        self.clock += 1;
    }

    /// Does what a program did. `random` decides what of a failed flush reached the disk.
    pub(crate) fn apply(&mut self, op: &Op, random: &mut Random) {
        match op {
            Op::MakeFile { path, file } => {
                self.files.insert(*file, Content::default());
                self.rename(path, |name, _| Naming::Set { name, node: Node::File(*file) });
            }
            Op::MakeDir { path } => {
                self.dirs.insert(path.clone(), Names::default());
                self.rename(path, |name, _| Naming::Set { name, node: Node::Dir });
            }
            Op::Rename { from, to } => {
                let ((dir, _), (dir_to, to)) = (split(from), split(to));
                assert_eq!(dir, dir_to, "between directories nothing is renamed");
                self.rename(from, |from, names| Naming::Move { node: names.now[&from], from, to });
            }
            Op::Remove { path } => self.rename(path, |name, _| Naming::Remove { name }),
            Op::SyncDir { path } => {
                let names = self.dirs.get_mut(path).unwrap();
                names.durable.clone_from(&names.now);
                names.pending.clear();
            }
            Op::Write { file, at, bytes } => {
                let change = Change::Write { at: usize::try_from(*at).unwrap(), bytes: Rc::clone(bytes) };
                self.files.get_mut(file).unwrap().pending.push(change);
            }
            Op::SetLen { file, len } => {
                self.files.get_mut(file).unwrap().pending.push(Change::SetLen(usize::try_from(*len).unwrap()));
            }
            Op::SyncFile { file, failed: false } => self.files.get_mut(file).unwrap().flush(),
            Op::SyncFile { file, failed: true } => self.files.get_mut(file).unwrap().fail_to_flush(random),
            Op::Note(_) => {}
        }
    }

    /// What of a file would be there after a power cut, whatever else is.
    pub(crate) fn flushed(&self, file: FileId) -> &[u8] {
        &self.files[&file].durable
    }

    /// What is there after the power was cut now.
    pub(crate) fn cut(&self, random: &mut Random) -> Tree {
        let mut tree = Tree::default();
        // Most file systems keep the order in which names were changed; POSIX does not ask for it.
        let in_order = random.one_in(2).then(|| random.index(self.clock + 1));
        let keep = random.index(5);
        let mut waiting = vec![PathBuf::new()];
        while let Some(dir) = waiting.pop() {
            let names = &self.dirs[&dir];
            let mut found = names.durable.clone();
            for (at, naming) in &names.pending {
                if in_order.map_or_else(|| random.index(4) < keep, |until| *at < until) {
                    apply(&mut found, naming);
                }
            }
            for (name, node) in found {
                let path = dir.join(name);
                match node {
                    Node::Dir => {
                        tree.dirs.push(path.clone());
                        waiting.push(path);
                    }
                    Node::File(file) => tree.files.push((path, self.files[&file].cut(random))),
                }
            }
        }
        tree
    }
}

fn apply(names: &mut BTreeMap<PathBuf, Node>, naming: &Naming) {
    match naming {
        Naming::Set { name, node } => drop(names.insert(name.clone(), *node)),
        Naming::Move { from, to, node } => {
            names.remove(from);
            names.insert(to.clone(), *node);
        }
        Naming::Remove { name } => drop(names.remove(name)),
    }
}

impl Content {
    fn flush(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Change::Write { at, bytes } => put(&mut self.durable, at, &bytes),
                Change::SetLen(len) => self.durable.resize(len, 0),
                Change::Grow(len) => self.durable.resize(self.durable.len().max(len), 0),
            }
        }
    }

    fn fail_to_flush(&mut self, random: &mut Random) {
        let keep = random.index(5);
        let mut len = self.durable.len();
        for change in self.pending.drain(..) {
            match change {
                Change::Write { at, bytes } => {
                    len = len.max(at + bytes.len());
                    write_pieces(&mut self.durable, at, &bytes, keep, random);
                }
                Change::SetLen(to) => {
                    len = to;
                    self.durable.resize(to, 0);
                }
                Change::Grow(to) => len = len.max(to),
            }
        }
        self.pending.push(Change::Grow(len));
    }

    fn cut(&self, random: &mut Random) -> Vec<u8> {
        let keep = random.index(5);
        let mut content = self.durable.clone();
        let mut len = content.len();
        for change in &self.pending {
            match change {
                Change::Write { at, bytes } => {
                    len = len.max(at + bytes.len());
                    write_pieces(&mut content, *at, bytes, keep, random);
                }
                Change::SetLen(to) => {
                    if random.index(4) < keep {
                        content.resize(*to, 0);
                    }
                    len = len.max(*to);
                }
                Change::Grow(to) => len = len.max(*to),
            }
        }
        if len > content.len() && random.one_in(4) {
            content.resize(len, 0);
        }
        content
    }
}

/// Writes of each sector all, nothing, or a beginning; `keep` of 4, on average.
fn write_pieces(content: &mut Vec<u8>, at: usize, bytes: &[u8], keep: usize, random: &mut Random) {
    let mut from = 0;
    while from < bytes.len() {
        let to = ((at + from) / SECTOR + 1) * SECTOR - at;
        let piece = &bytes[from..to.min(bytes.len())];
        if random.index(4) < keep {
            let kept = if random.one_in(8) { random.index(piece.len() + 1) } else { piece.len() };
            if kept > 0 {
                put(content, at + from, &piece[..kept]);
            }
        }
        from = to;
    }
}

impl Tree {
    /// Makes it in an empty directory.
    pub(crate) fn make(&self, root: &Path) {
        for dir in &self.dirs {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        for (path, content) in &self.files {
            fs::write(root.join(path), content).unwrap();
            if path.starts_with("keys") {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o600)).unwrap();
            }
        }
    }
}
