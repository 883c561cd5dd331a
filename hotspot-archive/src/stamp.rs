//! Time stamps of RFC 3161: the question that an authority is asked, and where its answer lies.
//!
//! The question is always of one shape, so it is written here, where the agent and the tool both have it. Whether an answer is worth anything (signature,
//! certificates, time) is judged by the tool alone, which has the libraries for it.

use crate::checkpoints::DIRECTORY;
use crate::note::BYTES_MAX as NOTE_BYTES_MAX;

/// Longest answer that is kept: a token with a chain of certificates has some 5 KB.
pub const REPLY_BYTES_MAX: usize = NOTE_BYTES_MAX;

/// Where the stamp of a checkpoint lies, relative to the archive.
#[must_use]
pub fn path(gateway: &str, line: u64) -> String {
    format!("{DIRECTORY}/{}", file_name(gateway, line))
}

/// Its name alone: beside a file of checkpoints that is kept elsewhere.
#[must_use]
pub fn file_name(gateway: &str, line: u64) -> String {
    format!("{gateway}-{line}.tsr")
}

/// A `TimeStampReq` (RFC 3161, section 2.4.1) in DER: version 1, the SHA-256 to be stamped, and the wish for the authority's certificate. No nonce:
/// an answer to the same question that was given before proves an earlier time, which is as good.
#[must_use]
pub fn query(imprint: &[u8; 32]) -> Vec<u8> {
    // SEQUENCE { version 1, MessageImprint { AlgorithmIdentifier { 2.16.840.1.101.3.4.2.1, NULL }, OCTET STRING of 32 bytes }, certReq TRUE }
    const BEFORE: [u8; 24] = [
        0x30, 0x39, 0x02, 0x01, 0x01, 0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04,
        0x02, 0x01, 0x05, 0x00, 0x04, 0x20,
    ];
    [&BEFORE[..], imprint, &[0x01, 0x01, 0xff]].concat()
}

/// Whether an answer may be one about this: an object in DER that holds the imprint, which a refusal does not. Enough to keep it, or to ask again.
#[must_use]
pub fn is_answer(reply: &[u8], imprint: &[u8; 32]) -> bool {
    reply.len() <= REPLY_BYTES_MAX && reply.first() == Some(&0x30) && reply.windows(32).any(|at| at == imprint)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_question_is_the_one_that_openssl_asks() {
        let dir = tempfile::tempdir().unwrap();
        let (checkpoint, query_file) = (dir.path().join("c"), dir.path().join("q"));
        std::fs::write(&checkpoint, "a checkpoint").unwrap();
        let status = Command::new("openssl")
            .args(["ts", "-query", "-sha256", "-cert", "-no_nonce", "-data"])
            .arg(&checkpoint)
            .arg("-out")
            .arg(&query_file)
            .status();
        assert!(status.unwrap().success());
        let imprint: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest("a checkpoint").into();
        assert_eq!(query(&imprint), std::fs::read(&query_file).unwrap());
        assert!(is_answer(&query(&imprint), &imprint));
        assert!(!is_answer(&query(&imprint), &[0; 32]) && !is_answer(b"<html>", &imprint));
    }
}
