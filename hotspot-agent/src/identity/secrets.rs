//! The secrets RADIUS clients share with us, by their address.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

/// Why a secret file is not used.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error("the secret file {} cannot be read", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the secret file {} can be read by others; `chmod 600` it", path.display())]
    Open { path: PathBuf },
    #[error("{}, line {line}: write a secret alone, or a network and a secret (`10.20.0.0/24 s3cret`)", path.display())]
    Line { path: PathBuf, line: usize },
    #[error("{}, line {line}: this network has a secret already", path.display())]
    Twice { path: PathBuf, line: usize },
    #[error("the secret file {} holds no secret", path.display())]
    Empty { path: PathBuf },
}

/// Networks and their secrets, the longest prefix first.
#[derive(Clone)]
pub struct Secrets {
    by_net: Vec<(IpNet, Vec<u8>)>,
}

impl Secrets {
    /// Reads a file: one secret alone for every client, or lines of network and secret; `#` begins a comment line.
    pub fn read(path: &Path) -> Result<Self, SecretsError> {
        let failed = |source| SecretsError::Io { path: path.to_path_buf(), source };
        let metadata = fs::metadata(path).map_err(failed)?;
        if metadata.mode() & 0o077 != 0 {
            return Err(SecretsError::Open { path: path.to_path_buf() });
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        let mut by_net: Vec<(IpNet, Vec<u8>)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = || SecretsError::Line { path: path.to_path_buf(), line: number + 1 };
            let words: Vec<&str> = line.split_whitespace().collect();
            let (nets, secret) = match words.as_slice() {
                [secret] => (EVERYWHERE.to_vec(), secret),
                [net, secret] => {
                    let net = net.parse().or_else(|_| net.parse::<IpAddr>().map(IpNet::from)).map_err(|_| bad())?;
                    (vec![net.trunc()], secret)
                }
                _ => return Err(bad()),
            };
            if nets.iter().any(|net| by_net.iter().any(|(known, _)| known == net)) {
                return Err(SecretsError::Twice { path: path.to_path_buf(), line: number + 1 });
            }
            by_net.extend(nets.into_iter().map(|net| (net, secret.as_bytes().to_vec())));
        }
        if by_net.is_empty() {
            return Err(SecretsError::Empty { path: path.to_path_buf() });
        }
        by_net.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
        Ok(Self { by_net })
    }

    /// The secret of a client; `None` for one that has none.
    #[must_use]
    pub fn of(&self, client: IpAddr) -> Option<&[u8]> {
        let client = client.to_canonical();
        self.by_net.iter().find(|(net, _)| net.contains(&client)).map(|(_, secret)| secret.as_slice())
    }
}

const EVERYWHERE: [IpNet; 2] = [
    IpNet::V4(ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::UNSPECIFIED, 0)),
];

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(text: &str, mode: u32) -> Result<Secrets, SecretsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Secrets::read(&path)
    }

    #[test]
    fn the_longest_prefix_counts() {
        let secrets = read("# all\nfallback\n10.0.0.0/8 wide\n10.20.0.0/16 narrow\n", 0o600).unwrap();
        let of = |ip: [u8; 4]| secrets.of(ip.into()).map(<[u8]>::to_vec);
        assert_eq!(of([10, 20, 0, 1]), Some(b"narrow".to_vec()));
        assert_eq!(of([10, 1, 0, 1]), Some(b"wide".to_vec()));
        assert_eq!(of([192, 0, 2, 1]), Some(b"fallback".to_vec()));
        assert!(read("10.0.0.0/8 wide", 0o600).unwrap().of([192, 0, 2, 1].into()).is_none());
        let secrets = read("2001:db8::/32 six\n2001:db8::7 host\n10.20.0.2 four\n", 0o600).unwrap();
        let of = |ip: &str| secrets.of(ip.parse().unwrap());
        assert_eq!([of("2001:db8::1"), of("2001:db8::7")], [Some(&b"six"[..]), Some(b"host")]);
        assert_eq!(of("::ffff:10.20.0.2"), Some(&b"four"[..]), "an IPv4 client on an IPv6 socket");
    }

    #[test]
    fn a_file_that_others_can_read_or_that_says_nothing_is_refused() {
        assert!(matches!(read("x", 0o640), Err(SecretsError::Open { .. })));
        assert!(matches!(read("# x\n", 0o600), Err(SecretsError::Empty { .. })));
        assert!(matches!(read("a b c\n", 0o600), Err(SecretsError::Line { line: 1, .. })));
        let twice = read("10.0.0.0/8 one\n10.1.2.3/8 two\n", 0o600);
        assert!(matches!(twice, Err(SecretsError::Twice { line: 2, .. })));
    }
}
