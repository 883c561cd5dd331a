//! Who may report over the network: bearer tokens, or HMAC-SHA256 over the request with a time and a nonce.
//!
//! A signed request is taken once: within the window its nonce is remembered, outside of it its time is refused. Secrets are
//! compared in constant time and never logged.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hmac::{Hmac, KeyInit, Mac};
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Seconds a signature's time may differ from ours, either way.
pub(super) const WINDOW_S: i64 = 300;
/// Nonces remembered; beyond it signed requests wait for old ones to leave the window.
const NONCES_MAX: usize = 1 << 20;
const NONCE_BYTES_MAX: usize = 64;
const SECRET_BYTES_MIN: usize = 16;

pub(super) const TIME_HEADER: &str = "x-hotspot-time";
pub(super) const NONCE_HEADER: &str = "x-hotspot-nonce";

/// Why a secret file is not used.
#[derive(Debug, thiserror::Error)]
pub enum PortalSecretsError {
    #[error("the portals' secret file {} cannot be read", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the portals' secret file {} can be read by others; `chmod 600` it", path.display())]
    Open { path: PathBuf },
    #[error("{}, line {line}: write `token SECRET` or `hmac SECRET`, at least {SECRET_BYTES_MIN} characters (`openssl rand -hex 32`)", path.display())]
    Line { path: PathBuf, line: usize },
    #[error("the portals' secret file {} holds no secret", path.display())]
    Empty { path: PathBuf },
}

/// Tokens and HMAC secrets; any of them opens the interface.
#[derive(Clone)]
pub struct PortalSecrets {
    tokens: Vec<Vec<u8>>,
    keys: Vec<Vec<u8>>,
    /// Nonces that were taken, with the time they were signed at, seconds.
    taken: Arc<Mutex<HashMap<Vec<u8>, i64>>>,
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unauthorized {
    #[error(
        "give `Authorization: Bearer TOKEN`, or `Authorization: HMAC-SHA256 SIGNATURE` with X-Hotspot-Time and X-Hotspot-Nonce"
    )]
    Nothing,
    #[error("unknown token or wrong signature")]
    Wrong,
    #[error("X-Hotspot-Time differs from this gateway's clock by more than {WINDOW_S} s; set the clocks by NTP")]
    OutsideWindow,
    #[error("this signed request was taken before; sign each with a nonce of its own")]
    Replayed,
    #[error("too many signed requests within {WINDOW_S} s")]
    TooMany,
}

/// What a signature is over.
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    /// With the query, as in the request line.
    pub(super) path: &'a str,
    pub(super) body: &'a [u8],
}

impl PortalSecrets {
    /// Reads lines of `token SECRET` and `hmac SECRET`; `#` begins a comment line.
    pub fn read(path: &Path) -> Result<Self, PortalSecretsError> {
        let failed = |source| PortalSecretsError::Io { path: path.to_path_buf(), source };
        if fs::metadata(path).map_err(failed)?.mode() & 0o077 != 0 {
            return Err(PortalSecretsError::Open { path: path.to_path_buf() });
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        let mut secrets = Self { tokens: Vec::new(), keys: Vec::new(), taken: Arc::default() };
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["token", secret] if secret.len() >= SECRET_BYTES_MIN => secrets.tokens.push((*secret).into()),
                ["hmac", secret] if secret.len() >= SECRET_BYTES_MIN => secrets.keys.push((*secret).into()),
                _ => return Err(PortalSecretsError::Line { path: path.to_path_buf(), line: number + 1 }),
            }
        }
        if secrets.tokens.is_empty() && secrets.keys.is_empty() {
            return Err(PortalSecretsError::Empty { path: path.to_path_buf() });
        }
        Ok(secrets)
    }

    /// Whether the head of a request can belong to somebody who may report; asked before its body is read.
    pub(super) fn may_send(&self, headers: &HeaderMap) -> Result<(), Unauthorized> {
        match Credential::of(headers)? {
            Credential::Token(token) => self.has_token(token),
            Credential::Signature { .. } => Ok(()),
        }
    }

    /// Whether a request may be taken; one that is signed is taken once.
    pub(super) fn take(&self, headers: &HeaderMap, signed: &Signed<'_>, now_s: i64) -> Result<(), Unauthorized> {
        match Credential::of(headers)? {
            Credential::Token(token) => self.has_token(token),
            Credential::Signature { signature, at, nonce } => {
                let at_s: i64 = at.parse().map_err(|_| Unauthorized::Nothing)?;
                let is_ours = self.keys.iter().any(|key| is_signed_by(key, &signature, at, nonce, signed));
                if !is_ours {
                    return Err(Unauthorized::Wrong);
                }
                if at_s.abs_diff(now_s) > WINDOW_S.unsigned_abs() {
                    return Err(Unauthorized::OutsideWindow);
                }
                self.take_nonce(nonce, at_s, now_s)
            }
        }
    }

    fn has_token(&self, token: &[u8]) -> Result<(), Unauthorized> {
        let is_known = self.tokens.iter().fold(false, |known, ours| known | bool::from(ours.ct_eq(token)));
        if is_known { Ok(()) } else { Err(Unauthorized::Wrong) }
    }

    fn take_nonce(&self, nonce: &str, at_s: i64, now_s: i64) -> Result<(), Unauthorized> {
        // Nothing can panic while holding it, and a panic ends the process anyway.
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() >= NONCES_MAX {
            taken.retain(|_, at_s| at_s.abs_diff(now_s) <= WINDOW_S.unsigned_abs());
            if taken.len() >= NONCES_MAX {
                return Err(Unauthorized::TooMany);
            }
        }
        match taken.insert(nonce.into(), at_s) {
            Some(before_s) if before_s.abs_diff(now_s) <= WINDOW_S.unsigned_abs() => Err(Unauthorized::Replayed),
            Some(_) | None => Ok(()),
        }
    }
}

enum Credential<'a> {
    Token(&'a [u8]),
    Signature { signature: Vec<u8>, at: &'a str, nonce: &'a str },
}

impl<'a> Credential<'a> {
    fn of(headers: &'a HeaderMap) -> Result<Self, Unauthorized> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let authorization = text(AUTHORIZATION.as_str()).ok_or(Unauthorized::Nothing)?;
        let (scheme, value) = authorization.split_once(' ').ok_or(Unauthorized::Nothing)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Self::Token(value.trim().as_bytes()));
        }
        if !scheme.eq_ignore_ascii_case("hmac-sha256") {
            return Err(Unauthorized::Nothing);
        }
        let (at, nonce) = text(TIME_HEADER).zip(text(NONCE_HEADER)).ok_or(Unauthorized::Nothing)?;
        if nonce.is_empty() || nonce.len() > NONCE_BYTES_MAX {
            return Err(Unauthorized::Nothing);
        }
        let signature = base16ct::mixed::decode_vec(value.trim()).map_err(|_| Unauthorized::Wrong)?;
        Ok(Self::Signature { signature, at, nonce })
    }
}

/// The signature is over time, nonce, method, path and body, each but the last followed by a line feed.
fn is_signed_by(key: &[u8], signature: &[u8], at: &str, nonce: &str, signed: &Signed<'_>) -> bool {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return false };
    for part in [at, nonce, signed.method, signed.path] {
        mac.update(part.as_bytes());
        mac.update(b"\n");
    }
    mac.update(signed.body);
    mac.verify_slice(signature).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW_S: i64 = 1_795_392_000;
    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn secrets(text: &str, mode: u32) -> Result<PortalSecrets, PortalSecretsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        PortalSecrets::read(&path)
    }

    fn signed(body: &[u8]) -> Signed<'_> {
        Signed { method: "PUT", path: "/v1/sessions/a", body }
    }

    /// Signatures by `openssl dgst -sha256 -hmac KEY` over "1795392000\nn1\nPUT\n/v1/sessions/a\n{}" and the same with nonce n2.
    fn headers(nonce: &str, at: &str, signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("HMAC-SHA256 {signature}").parse().unwrap());
        headers.insert(TIME_HEADER, at.parse().unwrap());
        headers.insert(NONCE_HEADER, nonce.parse().unwrap());
        headers
    }

    const SIGNATURE_N1: &str = "c0ffffa3aa074308209a86343c6d524151820a6955348b45daeeffcb35162fff";
    const SIGNATURE_N2: &str = "ed3cff3be917620e406c4c8a846c07802b5eb04efda448a71619dc126e4d2406";

    #[test]
    fn a_signed_request_is_taken_once() {
        let secrets = secrets(&format!("# portal\nhmac {KEY}\n"), 0o600).unwrap();
        let first = headers("n1", "1795392000", SIGNATURE_N1);
        assert_eq!(secrets.take(&first, &signed(b"{}"), NOW_S), Ok(()));
        assert_eq!(secrets.take(&first, &signed(b"{}"), NOW_S + 1), Err(Unauthorized::Replayed));
        let second = headers("n2", "1795392000", SIGNATURE_N2);
        assert_eq!(secrets.take(&second, &signed(b"{}"), NOW_S + WINDOW_S + 1), Err(Unauthorized::OutsideWindow));
        assert_eq!(secrets.take(&second, &signed(b"{ }"), NOW_S), Err(Unauthorized::Wrong));
        assert_eq!(secrets.take(&second, &signed(b"{}"), NOW_S), Ok(()));
    }

    #[test]
    fn a_token_opens_and_nothing_else_does() {
        let secrets = secrets("token abcdefghijklmnop\n", 0o600).unwrap();
        let bearer = |token: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
            headers
        };
        assert_eq!(secrets.take(&bearer("abcdefghijklmnop"), &signed(b""), NOW_S), Ok(()));
        assert_eq!(secrets.take(&bearer("abcdefghijklmnoq"), &signed(b""), NOW_S), Err(Unauthorized::Wrong));
        assert_eq!(secrets.take(&HeaderMap::new(), &signed(b""), NOW_S), Err(Unauthorized::Nothing));
        assert_eq!(secrets.may_send(&bearer("x")), Err(Unauthorized::Wrong));
    }

    #[test]
    fn files_that_are_open_empty_or_weak_are_refused() {
        assert!(matches!(secrets("token abcdefghijklmnop", 0o644), Err(PortalSecretsError::Open { .. })));
        assert!(matches!(secrets("# nothing\n", 0o600), Err(PortalSecretsError::Empty { .. })));
        assert!(matches!(secrets("\ntoken short\n", 0o600), Err(PortalSecretsError::Line { line: 2, .. })));
    }
}
