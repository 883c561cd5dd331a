//! What a witness is asked to sign for that it must not.

use std::path::PathBuf;

use super::*;
use crate::manifest::{GatewayKey, Manifest, Sealing};
use crate::segment::Origin;
use crate::signing::read_public_key;

/// A gateway with its archive, and a witness that trusts it.
struct Place {
    dir: tempfile::TempDir,
    manifest: Manifest,
    checkpoints: Vec<String>,
    now_s: u64,
    /// Another one makes other lines.
    sealed_ns: i64,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = GatewayKey::open(&dir.path().join("keys/k")).unwrap();
        let manifest = Manifest::open(&dir.path().join("archive"), "g", key).unwrap();
        WitnessKey::create(&dir.path().join("w"), "w/1").unwrap();
        let place = Self { dir, manifest, checkpoints: Vec::new(), now_s: 1_800_000_000, sealed_ns: 3 };
        trust(&place.state(), "g", &place.public()).unwrap();
        place
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn public(&self) -> VerifyingKey {
        read_public_key(&self.dir.path().join("archive/manifest/g.pub")).unwrap()
    }

    fn witness(&self) -> Witness {
        Witness::new(&self.state(), WitnessKey::open(&self.dir.path().join("w")).unwrap())
    }

    /// Seals so many segments, with a checkpoint after each.
    fn seal(&mut self, count: u64) {
        for _ in 0..count {
            let sequence = self.manifest.last_sequence() + 1;
            let origin = Origin { site: "s".into(), gateway: "g".into(), sequence };
            let draft = self.manifest.draft(&origin, 1).unwrap();
            let (sessions, devices, coverage) = (&[], &[], &[]);
            let sealed_ns = self.sealed_ns;
            let sealing = Sealing { closed_ns: 2, sealed_ns, clock: None, step_ns: 0, sessions, devices, coverage };
            self.manifest.seal(draft, &sealing).unwrap();
            self.checkpoint();
        }
    }

    fn checkpoint(&mut self) {
        self.checkpoints.push(self.manifest.checkpoint(3).unwrap());
    }

    fn begin_epoch(&mut self) {
        self.manifest.begin_epoch(3, None).unwrap();
    }

    fn source(&self) -> Source {
        let text = std::fs::read(self.dir.path().join("archive/manifest/g.jsonl")).unwrap();
        Source::read("g", self.public(), &text, &self.checkpoints, |line, what| panic!("{line}: {what}"))
    }

    fn request(&self, old: u64) -> Request {
        let request = self.source().request(old).unwrap();
        assert_eq!(Request::parse(&request.text()).unwrap(), request, "as it came over the wire");
        request
    }

    fn ask(&mut self, request: &Request) -> Result<Note, Refusal> {
        self.now_s += 1;
        let line = self.witness().add_checkpoint(request, self.now_s)?;
        let note = Note { text: request.note.text.clone(), signatures: vec![line] };
        assert_eq!(crate::cosignature::seen_at(&note, &self.witness().verifier()), Some(Ok(self.now_s)));
        Ok(note)
    }
}

#[test]
fn a_chain_that_grows_is_signed_for_step_by_step_across_keys() {
    let mut place = Place::new();
    place.seal(3);
    place.ask(&place.request(0)).unwrap();
    place.seal(4);
    place.begin_epoch();
    place.seal(2);
    place.begin_epoch();
    place.seal(1);
    let request = place.request(3);
    assert_eq!(request.epochs.len(), 2);
    place.ask(&request).unwrap();
    assert_eq!(place.witness().size("hotspot/g").unwrap(), 12);
    // Nothing new: the same again, and its time moves on.
    place.ask(&place.request(12)).unwrap();
    // A head that is the line which ends an epoch, signed by either key.
    place.begin_epoch();
    place.checkpoint();
    place.ask(&place.request(12)).unwrap();
    place.seal(1);
    place.ask(&place.request(13)).unwrap();
}

#[test]
fn a_smaller_tree_and_a_replayed_checkpoint_are_refused() {
    let mut place = Place::new();
    place.seal(3);
    let replayed = place.request(0);
    place.ask(&replayed).unwrap();
    place.seal(2);
    place.ask(&place.request(3)).unwrap();
    let refused = |found| matches!(found, Err(Refusal::Conflict { size: 5, .. }));
    assert!(refused(place.ask(&replayed)));
    let mut smaller = replayed;
    smaller.old = 5;
    assert!(matches!(place.ask(&smaller), Err(Refusal::Malformed(_))), "from 5 lines to 3");
    smaller.old = 3;
    assert!(refused(place.ask(&smaller)));
    assert_eq!(place.witness().size("hotspot/g").unwrap(), 5);
}

#[test]
fn another_tree_signed_by_the_gateway_s_own_key_is_refused() {
    // Whoever took the gateway over has its key, and writes the last lines again.
    let mut place = Place::new();
    place.seal(6);
    place.ask(&place.request(0)).unwrap();
    let chain = place.dir.path().join("archive/manifest/g.jsonl");
    let text = std::fs::read_to_string(&chain).unwrap();
    let kept: String = text.split_inclusive('\n').take(4).collect();
    std::fs::write(&chain, kept).unwrap();
    let key = GatewayKey::open(&place.dir.path().join("keys/k")).unwrap();
    place.manifest = Manifest::open(&place.dir.path().join("archive"), "g", key).unwrap();
    place.checkpoints.clear();
    place.checkpoint();
    assert!(place.source().request(6).is_none(), "four lines cannot go on from six");
    place.sealed_ns = 4;
    place.seal(2);
    let same_size = place.request(6);
    assert_eq!(same_size.head().unwrap().size, 6);
    let refusal = place.ask(&same_size).unwrap_err();
    assert!(refusal.to_string().contains("another tree of 6 lines"), "{refusal}");
    // With a proof of its own making, or none.
    place.seal(3);
    let forged = place.request(6);
    for proof in [Vec::new(), forged.proof[1..].to_vec(), place.request(4).proof, forged.proof.clone()] {
        assert!(matches!(place.ask(&Request { proof, ..forged.clone() }), Err(Refusal::Inconsistent { .. })));
    }
    assert_eq!(place.witness().size("hotspot/g").unwrap(), 6);
}

#[test]
fn a_key_whose_epoch_has_ended_signs_for_no_later_line() {
    let mut place = Place::new();
    place.seal(2);
    let keys = place.dir.path().join("keys/k");
    std::fs::copy(&keys, place.dir.path().join("stolen")).unwrap();
    place.begin_epoch();
    place.seal(2);
    place.ask(&place.request(0)).unwrap();
    // The thief of the first key signs the true tree of five lines, and one that only grows.
    place.seal(2);
    let mut request = place.request(5);
    let stolen = GatewayKey::open(&place.dir.path().join("stolen")).unwrap();
    let head = request.head().unwrap();
    request.note.signatures = vec![SignatureLine::parse(&crate::checkpoint::sign_head(&stolen, &head)).unwrap()];
    let refusal = place.ask(&request).unwrap_err();
    assert!(matches!(refusal, Refusal::NotSigned { .. }), "{refusal}");
    // Nor does hiding the line that ended the epoch help, or showing an earlier one in its place.
    request.epochs.clear();
    assert!(matches!(place.ask(&request), Err(Refusal::NotSigned { .. })));
}

#[test]
fn an_epoch_is_believed_only_from_the_tree_and_the_key_before() {
    let mut place = Place::new();
    place.seal(2);
    place.ask(&place.request(0)).unwrap();
    place.begin_epoch();
    place.seal(1);
    let genuine = place.request(2);
    let mut without = genuine.clone();
    without.epochs.clear();
    assert!(matches!(place.ask(&without), Err(Refusal::NotSigned { .. })), "a new key out of nowhere");
    for change in [
        (|epoch: &mut EpochLine| epoch.line = 4) as fn(&mut EpochLine),
        |epoch| epoch.path[0][0] ^= 1,
        |epoch| epoch.path.clear(),
        |epoch| epoch.text = epoch.text.replace("\"epoch\":2", "\"epoch\":3"),
    ] {
        let mut changed = genuine.clone();
        change(&mut changed.epochs[0]);
        assert!(matches!(place.ask(&changed), Err(Refusal::Inconsistent { .. })));
    }
    // A line that is in the tree and about a segment.
    let mut other = genuine.clone();
    let chain = std::fs::read_to_string(place.dir.path().join("archive/manifest/g.jsonl")).unwrap();
    let leaves: Vec<Hash> = chain.lines().map(|line| leaf_hash(&Sha256::digest(line))).collect();
    let path = crate::merkle::inclusion(&leaves, 3).unwrap();
    other.epochs[0] = EpochLine { line: 4, text: chain.lines().nth(3).unwrap().to_owned(), path };
    assert!(matches!(place.ask(&other), Err(Refusal::Inconsistent { .. })));
    place.ask(&genuine).unwrap();
}

#[test]
fn unknown_origins_and_changed_notes_are_refused() {
    let mut place = Place::new();
    place.seal(2);
    let genuine = place.request(0);
    for (text, expected) in [("hotspot/h", 404), ("hotspot-audit/g", 404), ("hotspot/g", 403)] {
        let mut other = genuine.clone();
        let head = TreeHead { origin: text.to_owned(), ..other.head().unwrap() };
        other.note.text = if text == "hotspot/g" { head.text().replace("\n2\n", "\n3\n") } else { head.text() };
        let refusal = place.ask(&other).unwrap_err();
        let is_expected = match expected {
            404 => matches!(refusal, Refusal::UnknownOrigin { .. }),
            _ => matches!(refusal, Refusal::NotSigned { .. }),
        };
        assert!(is_expected, "{text}: {refusal}");
    }
    trust_audit_log(&place.state(), "g").unwrap();
    place.witness().see_audit_log("g", &[[1; 32]], place.now_s).unwrap();
    let mut audit = genuine.clone();
    audit.note.text = audit.note.text.replace("hotspot/g", "hotspot-audit/g");
    assert!(
        matches!(place.ask(&audit), Err(Refusal::UnknownOrigin { .. })),
        "nobody signs for an audit log in a request"
    );
    assert!(matches!(trust(&place.state(), "g", &place.witness().verifier().key), Err(Refusal::Inconsistent { .. })));
}

#[test]
fn an_audit_log_that_was_cut_or_changed_is_refused() {
    let place = Place::new();
    let witness = place.witness();
    let lines: Vec<[u8; 32]> = (0..9).map(|number| [number; 32]).collect();
    assert!(matches!(witness.see_audit_log("office", &lines, 7), Err(Refusal::UnknownOrigin { .. })));
    trust_audit_log(&place.state(), "office").unwrap();
    let note = witness.see_audit_log("office", &lines[..5], 7).unwrap();
    assert_eq!(crate::cosignature::seen_at(&note, &witness.verifier()), Some(Ok(7)));
    let cut = witness.see_audit_log("office", &lines[..4], 8).unwrap_err();
    assert!(cut.to_string().contains("has 4 lines, and had 5"), "{cut}");
    let mut changed = lines.clone();
    changed[2] = [99; 32];
    assert!(matches!(witness.see_audit_log("office", &changed, 8), Err(Refusal::Inconsistent { .. })));
    assert!(matches!(witness.see_audit_log("office", &changed[..5], 8), Err(Refusal::Inconsistent { .. })));
    witness.see_audit_log("office", &lines, 9).unwrap();
}

#[test]
fn what_is_signed_for_was_remembered_before() {
    let mut place = Place::new();
    place.seal(2);
    let request = place.request(0);
    // A state that cannot be written: its file is a directory that is not empty.
    let name = to_hex(&Sha256::digest("hotspot/g"));
    let temporary = place.state().join(format!("{name}.json.tmp"));
    std::fs::create_dir_all(temporary.join("x")).unwrap();
    assert!(matches!(place.ask(&request), Err(Refusal::State { operation: "written", .. })));
    std::fs::remove_dir_all(&temporary).unwrap();
    place.ask(&request).unwrap();
    // One that is damaged is no new origin, and a directory that is gone no new witness.
    let file = place.state().join(format!("{name}.json"));
    let text = std::fs::read_to_string(&file).unwrap();
    for damaged in ["", "{}", &text.replace("hotspot/g", "hotspot/h"), &text[..40]] {
        std::fs::write(&file, damaged).unwrap();
        assert!(matches!(place.ask(&request), Err(Refusal::State { operation: "read", .. })), "{damaged}");
    }
    // Nor is one that is gone, not even when its gateway is made known again.
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(place.ask(&request), Err(Refusal::State { operation: "read", .. })));
    let key = read_public_key(&place.dir.path().join("archive/manifest/g.pub")).unwrap();
    assert!(matches!(trust(&place.state(), "g", &key), Err(Refusal::State { operation: "read", .. })));
    std::fs::remove_dir_all(place.state()).unwrap();
    assert!(matches!(place.ask(&request), Err(Refusal::State { operation: "read", .. })));
}

#[test]
fn a_clock_that_runs_back_stops_the_witness() {
    let mut place = Place::new();
    place.seal(1);
    place.ask(&place.request(0)).unwrap();
    place.seal(1);
    place.now_s -= 100;
    assert!(matches!(place.ask(&place.request(1)), Err(Refusal::ClockIsBehind { .. })));
}

#[test]
fn requests_that_are_none_are_refused() {
    let mut place = Place::new();
    place.seal(3);
    let text = place.request(1).text();
    assert!(text.starts_with("old 1\n"), "without a new key it is a C2SP request: {text}");
    for changed in [
        String::new(),
        text.replace("old 1", "old 01"),
        text.replace("old 1", "old"),
        text.replacen("\n\n", "\n", 1),
        text.replace("old 1\n", "old 1\nAAAA\n"),
        text.replace("old 1\n", "epoch 1\nold 1\n"),
        text.replace("old 1\n", &format!("old 1\n{}", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n".repeat(64))),
        text[..text.len() - 1].to_owned(),
    ] {
        assert!(matches!(Request::parse(&changed), Err(Refusal::Malformed(_))), "{changed}");
    }
    // Extension lines are in what a cosigner signs, and nobody here vouches for them.
    let mut extended = place.request(0);
    extended.note.text.push_str("more\n");
    assert!(matches!(place.ask(&extended), Err(Refusal::Malformed(_))));
}

/// The vectors of docs/formats/checkpoint.md, which were made by a program that was written from that page alone.
#[test]
fn the_vectors_of_the_documents_are_ours() {
    let note = "hotspot/g\n3\nuo2Ut/vOyue4HEyAV0/iRzSmkXv5wezWb/Pgw06tRiA=\n\n\u{2014} hotspot/g \
        VaHgytvVcZq1D9HJIhAomGrPHIqEnD7M9KmEXNOMgTzUWO8dxRjQnxlXu7Z7sd+ojneXpRmrXOpx+YN0o9/dHDkt1QU=\n\u{2014} w.example/1 \
        yf3gygAAAABrA6yrsZHhFZ20s42BVl2F2wt7Nvi18ZC6K2f9QyN4Icd3SV8EDaxVs2++cfz6uRCu39KT9ONEryZGPTHmFqMzDwnvBQ==\n";
    let leaves: Vec<Hash> = (0..7u8).map(|number| leaf_hash(&[number; 32])).collect();
    let note = Note::parse(note).unwrap();
    let head = TreeHead::parse(&note.text).unwrap();
    assert_eq!(head.root, crate::merkle::root_of(&leaves[..3]));
    assert_eq!(to_hex(&head.root), "ba8d94b7fbcecae7b81c4c80574fe24734a6917bf9c1ecd66ff3e0c34ead4620");
    let seven = crate::merkle::root_of(&leaves);
    assert_eq!(to_hex(&seven), "7318881c41fce3c1de3640df8e8c110c93f43f686b74204a9d1ad5b8c71c2047");
    let request = "old 3\ny6jFlhIL22neu9kj2Sy6lIvefH0GpGWhu32Y0xFgOPo=\nrKoEZjqFR6L3DGDMGPk3h5axPE+aCPcNatrmYjZbMMY=\n\
        KPuB5JaJfgzohvCGAjkukjm2XGWQQeUgIWPlitiY9EQ=\nHz+VhDQTGR/nUhmWtrHkFH1wOxcCxHWkeK0lpva0FbQ=\n\n";
    let request = Request::parse(&format!("{request}{}", note.bytes())).unwrap();
    assert!(verify_consistency(3, &head.root, 7, &seven, &request.proof));
    let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key();
    let gateway = VerifierKey { name: "hotspot/g".into(), kind: KeyKind::Note, key };
    assert_eq!(note.is_signed_by(&gateway), Some(true));
    let witness = VerifierKey::parse("w.example/1+c9fde0ca+BIE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU").unwrap();
    assert_eq!(crate::cosignature::seen_at(&note, &witness), Some(Ok(1_795_402_923)));
    let again = cosign("w.example/1", &ed25519_dalek::SigningKey::from_bytes(&[2; 32]), &note.text, 1_795_402_923);
    assert_eq!(again, note.signatures[1]);
}
