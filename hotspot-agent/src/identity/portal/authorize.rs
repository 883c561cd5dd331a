//! Who may report over the network: bearer tokens, or HMAC-SHA256 over the head of the request with a time, a nonce and the hash of the body.
//!
//! The head alone proves who sends: nothing of a body is read before, so that a stranger costs no memory. A signed request is taken once:
//! within the window its nonce is remembered, also over a restart, outside of it its time is refused. Secrets are compared in constant
//! time and never logged.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::nonces::{KeyId, Nonces, Taken};

/// Seconds a signature's time may differ from ours, either way.
pub(super) const WINDOW_S: i64 = 300;
const NONCE_BYTES_MAX: usize = 64;
const SECRET_BYTES_MIN: usize = 16;

pub(super) const TIME_HEADER: &str = "x-hotspot-time";
pub(super) const NONCE_HEADER: &str = "x-hotspot-nonce";
pub(super) const BODY_HEADER: &str = "x-hotspot-body-sha256";

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
    #[error("the nonces of signed requests cannot be kept in {}", path.display())]
    Nonces { path: PathBuf, source: io::Error },
}

/// Tokens and HMAC secrets; any of them opens the interface.
#[derive(Clone)]
pub struct PortalSecrets {
    tokens: Vec<Vec<u8>>,
    keys: Vec<Vec<u8>>,
    nonces: Arc<Nonces>,
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unauthorized {
    #[error(
        "give `Authorization: Bearer TOKEN`, or `Authorization: HMAC-SHA256 SIGNATURE` with X-Hotspot-Time, X-Hotspot-Nonce and \
         X-Hotspot-Body-SHA256"
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
    #[error("the body is not the one whose hash X-Hotspot-Body-SHA256 gives")]
    OtherBody,
    #[error("the nonce could not be recorded; sign the request anew and send it again")]
    NotKept,
}

/// What the head of a request proved; a signature still has to fit the body.
pub(super) enum Proven {
    Token,
    Signature { key: KeyId, nonce: Vec<u8>, at_s: i64, body_sha256: [u8; 32] },
}

/// What a signature is over, beside what its own headers say.
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    /// With the query, as in the request line.
    pub(super) path: &'a str,
}

impl PortalSecrets {
    /// Reads lines of `token SECRET` and `hmac SECRET`; `#` begins a comment line. Nonces are kept in files that begin with `nonces`.
    pub fn read(path: &Path, nonces: &Path) -> Result<Self, PortalSecretsError> {
        let failed = |source| PortalSecretsError::Io { path: path.to_path_buf(), source };
        if fs::metadata(path).map_err(failed)?.mode() & 0o077 != 0 {
            return Err(PortalSecretsError::Open { path: path.to_path_buf() });
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        let kept =
            Nonces::open(nonces).map_err(|source| PortalSecretsError::Nonces { path: nonces.to_path_buf(), source })?;
        let mut secrets = Self { tokens: Vec::new(), keys: Vec::new(), nonces: Arc::new(kept) };
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

    /// Whether the head of a request comes from somebody who may report; asked before anything of its body is read.
    pub(super) fn prove(&self, headers: &HeaderMap, signed: &Signed<'_>, now_s: i64) -> Result<Proven, Unauthorized> {
        match Credential::of(headers)? {
            Credential::Token(token) => self.has_token(token).map(|()| Proven::Token),
            Credential::Signature { signature, at, nonce, body } => {
                let at_s: i64 = at.parse().map_err(|_| Unauthorized::Nothing)?;
                let key = self
                    .keys
                    .iter()
                    .find(|key| is_signed_by(key, &signature, [at, nonce, signed.method, signed.path, body]));
                let key = KeyId::of(key.ok_or(Unauthorized::Wrong)?);
                if at_s.abs_diff(now_s) > WINDOW_S.unsigned_abs() {
                    return Err(Unauthorized::OutsideWindow);
                }
                let nonce = nonce.as_bytes().to_vec();
                if self.nonces.has(key, &nonce, now_s) {
                    return Err(Unauthorized::Replayed);
                }
                let mut body_sha256 = [0; 32];
                base16ct::mixed::decode(body, &mut body_sha256).map_err(|_| Unauthorized::Nothing)?;
                Ok(Proven::Signature { key, nonce, at_s, body_sha256 })
            }
        }
    }

    /// Takes a request whose head was proven and whose body has arrived; one that is signed is taken once. Waits for the disk.
    pub(super) fn take(&self, proven: Proven, body: &[u8], now_s: i64) -> Result<(), Unauthorized> {
        let Proven::Signature { key, nonce, at_s, body_sha256 } = proven else { return Ok(()) };
        if <[u8; 32]>::from(Sha256::digest(body)) != body_sha256 {
            return Err(Unauthorized::OtherBody);
        }
        match self.nonces.take(key, nonce, at_s, now_s) {
            Taken::Now => Ok(()),
            Taken::Before => Err(Unauthorized::Replayed),
            Taken::TooMany => Err(Unauthorized::TooMany),
            Taken::NotKept => Err(Unauthorized::NotKept),
        }
    }

    fn has_token(&self, token: &[u8]) -> Result<(), Unauthorized> {
        let is_known = self.tokens.iter().fold(false, |known, ours| known | bool::from(ours.ct_eq(token)));
        if is_known { Ok(()) } else { Err(Unauthorized::Wrong) }
    }
}

enum Credential<'a> {
    Token(&'a [u8]),
    Signature { signature: Vec<u8>, at: &'a str, nonce: &'a str, body: &'a str },
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
        let body = text(BODY_HEADER).ok_or(Unauthorized::Nothing)?;
        if nonce.is_empty() || nonce.len() > NONCE_BYTES_MAX {
            return Err(Unauthorized::Nothing);
        }
        let signature = base16ct::mixed::decode_vec(value.trim()).map_err(|_| Unauthorized::Wrong)?;
        Ok(Self::Signature { signature, at, nonce, body })
    }
}

/// The signature is over time, nonce, method, path and the hash of the body as its header gives it, with line feeds between.
fn is_signed_by(key: &[u8], signature: &[u8], parts: [&str; 5]) -> bool {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return false };
    mac.update(parts.join("\n").as_bytes());
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
        PortalSecrets::read(&path, &dir.path().join("nonces"))
    }

    const PUT: Signed<'_> = Signed { method: "PUT", path: "/v1/sessions/a" };

    fn take(secrets: &PortalSecrets, headers: &HeaderMap, body: &[u8], now_s: i64) -> Result<(), Unauthorized> {
        secrets.take(secrets.prove(headers, &PUT, now_s)?, body, now_s)
    }

    fn headers(nonce: &str, at: &str, signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("HMAC-SHA256 {signature}").parse().unwrap());
        headers.insert(TIME_HEADER, at.parse().unwrap());
        headers.insert(NONCE_HEADER, nonce.parse().unwrap());
        headers.insert(BODY_HEADER, HASH_OF_BODY.parse().unwrap());
        headers
    }

    /// By `sha256sum` of "{}".
    const HASH_OF_BODY: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    /// By `openssl dgst -sha256 -hmac KEY` over "1795392000\nn1\nPUT\n/v1/sessions/a\n" and the hash, and the same with nonce n2.
    const SIGNATURE_N1: &str = "9ba99e3c07c6e1d4e0623b09042ea21b3f5a6b0616aba3a8035be3d0d88b73c7";
    const SIGNATURE_N2: &str = "cd844e0f8ed44dd551c96627230369595d5604d0d47108ef37a9b3c77a817f79";

    #[test]
    fn a_signed_request_is_taken_once() {
        let secrets = secrets(&format!("# portal\nhmac {KEY}\n"), 0o600).unwrap();
        let first = headers("n1", "1795392000", SIGNATURE_N1);
        assert_eq!(take(&secrets, &first, b"{}", NOW_S), Ok(()));
        assert_eq!(take(&secrets, &first, b"{}", NOW_S + 1), Err(Unauthorized::Replayed));
        let second = headers("n2", "1795392000", SIGNATURE_N2);
        assert_eq!(take(&secrets, &second, b"{}", NOW_S + WINDOW_S + 1), Err(Unauthorized::OutsideWindow));
        assert_eq!(take(&secrets, &second, b"{ }", NOW_S), Err(Unauthorized::OtherBody));
        assert_eq!(take(&secrets, &second, b"{}", NOW_S), Ok(()));
    }

    #[test]
    fn nothing_that_is_signed_can_be_changed_and_none_of_it_left_out() {
        let secrets = secrets(&format!("hmac {KEY}\n"), 0o600).unwrap();
        let right = headers("n1", "1795392000", SIGNATURE_N1);
        let prove = |headers: &HeaderMap, signed: &Signed<'_>| secrets.prove(headers, signed, NOW_S).map(drop);
        assert_eq!(prove(&right, &PUT), Ok(()));
        let other_hash = HASH_OF_BODY.replace('4', "5");
        for (name, other) in [(TIME_HEADER, "1795392001"), (NONCE_HEADER, "n3"), (BODY_HEADER, &other_hash)] {
            let mut changed = right.clone();
            changed.insert(name, other.parse().unwrap());
            assert_eq!(prove(&changed, &PUT), Err(Unauthorized::Wrong), "{name}");
            changed.remove(name);
            assert_eq!(prove(&changed, &PUT), Err(Unauthorized::Nothing), "{name}");
        }
        assert_eq!(prove(&right, &Signed { method: "DELETE", ..PUT }), Err(Unauthorized::Wrong));
        assert_eq!(prove(&right, &Signed { path: "/v1/sessions/b", ..PUT }), Err(Unauthorized::Wrong));
    }

    #[test]
    fn without_a_secret_for_signatures_none_proves_anything() {
        let secrets = secrets("token abcdefghijklmnop\n", 0o600).unwrap();
        let signed = headers("n1", "1795392000", SIGNATURE_N1);
        assert_eq!(secrets.prove(&signed, &PUT, NOW_S).map(drop), Err(Unauthorized::Wrong));
    }

    #[test]
    fn a_token_opens_and_nothing_else_does() {
        let secrets = secrets("token abcdefghijklmnop\n", 0o600).unwrap();
        let bearer = |token: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
            headers
        };
        assert_eq!(take(&secrets, &bearer("abcdefghijklmnop"), b"", NOW_S), Ok(()));
        assert_eq!(take(&secrets, &bearer("abcdefghijklmnoq"), b"", NOW_S), Err(Unauthorized::Wrong));
        assert_eq!(take(&secrets, &HeaderMap::new(), b"", NOW_S), Err(Unauthorized::Nothing));
    }

    #[test]
    fn files_that_are_open_empty_or_weak_are_refused() {
        assert!(matches!(secrets("token abcdefghijklmnop", 0o644), Err(PortalSecretsError::Open { .. })));
        assert!(matches!(secrets("# nothing\n", 0o600), Err(PortalSecretsError::Empty { .. })));
        assert!(matches!(secrets("\ntoken short\n", 0o600), Err(PortalSecretsError::Line { line: 2, .. })));
    }
}
