//! Time stamps of RFC 3161, judged: whose signature, over what, at what time, and on whose certificate.
//!
//! A stamp counts where its CMS signature is that of the certificate it names, that certificate is for time stamping and for nothing else, and a chain leads
//! from it to a root that the caller trusts, all of them valid at the time that is stamped. Revocation is not looked at.

mod token;

use std::path::Path;
use std::time::Duration;

use der::Encode;
use hotspot_archive::verify::Stamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::ring as algorithms;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;

use self::token::Token;
use crate::Failure;

/// id-kp-timeStamping (RFC 3161, section 2.3), as the content of its DER form.
const TIME_STAMPING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08];
const TIME_STAMPING_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.8");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The roots of time-stamping authorities that are trusted.
pub(crate) struct Authorities {
    roots: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// Reads certificates in PEM.
    pub(crate) fn read(paths: &[impl AsRef<Path>]) -> Result<Self, Failure> {
        let mut roots = Vec::new();
        for path in paths {
            let path = path.as_ref();
            let failed = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
            let bytes = std::fs::read(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
            let before = roots.len();
            for root in CertificateDer::pem_slice_iter(&bytes) {
                let root = root.map_err(|error| failed(format!("is no PEM: {error}")))?;
                anchor_from_trusted_cert(&root).map_err(|error| failed(format!("holds no certificate: {error}")))?;
                roots.push(root);
            }
            if roots.len() == before {
                return Err(failed("holds no certificate in PEM".to_owned()));
            }
        }
        Ok(Self { roots })
    }

    /// Judges a `TimeStampResp`; what is wrong with it otherwise.
    pub(crate) fn judge(&self, reply: &[u8]) -> Result<Stamp, String> {
        let token = Token::parse(reply)?;
        let signer = &token.signer;
        let encoded = signer.to_der().map_err(|_| "its certificate cannot be read")?;
        let encoded = CertificateDer::from(encoded);
        let certificate = EndEntityCert::try_from(&encoded).map_err(|error| format!("its certificate: {error}"))?;
        token.check_attributes()?;
        let message = token.signed_bytes()?;
        let mut fits = candidates(token.signature_algorithm(), token.digest_algorithm()).into_iter();
        if !fits.any(|algorithm| certificate.verify_signature(algorithm, &message, token.signature()).is_ok()) {
            return Err("its signature does not fit: it was changed, or is another key's, or of an algorithm that is not known here".to_owned());
        }
        check_purpose(signer)?;
        self.check_chain(&certificate, &token)?;
        Ok(Stamp { imprint: token.imprint, at_ns: token.at_ns, authority: name(signer) })
    }

    /// A chain of certificates to a root, each valid at the time that is stamped.
    fn check_chain(&self, certificate: &EndEntityCert<'_>, token: &Token) -> Result<(), String> {
        let at_s = u64::try_from(token.at_ns.div_euclid(1_000_000_000)).map_err(|_| "its time lies before 1970")?;
        // webpki looks at the times of every certificate but of the roots.
        let is_valid = |root: &&CertificateDer<'_>| {
            Certificate::from_der(root).is_ok_and(|root| {
                let validity = &root.tbs_certificate.validity;
                let (from, to) = (validity.not_before.to_unix_duration(), validity.not_after.to_unix_duration());
                (from.as_secs()..=to.as_secs()).contains(&at_s)
            })
        };
        let roots = self.roots.iter().filter(is_valid);
        let anchors: Vec<TrustAnchor<'_>> = roots.filter_map(|root| anchor_from_trusted_cert(root).ok()).collect();
        if anchors.is_empty() {
            return Err("no certificate given with --tsa-ca was valid at the time that it stamps".to_owned());
        }
        let others = token.certificates.iter().filter_map(|other| other.to_der().ok()).map(CertificateDer::from);
        let others: Vec<_> = others.collect();
        let time = UnixTime::since_unix_epoch(Duration::from_secs(at_s));
        // The authority's own certificate was looked at; those between need not say what they are for.
        let usage = KeyUsage::required_if_present(TIME_STAMPING);
        let path = certificate.verify_for_usage(ALL_VERIFICATION_ALGS, &anchors, &others, time, usage, None, None);
        path.map(drop).map_err(|error| format!("its certificate does not lead to one given with --tsa-ca: {error}"))
    }
}

/// The certificate must be for time stamping alone, and say so critically (RFC 3161, section 2.3).
fn check_purpose(certificate: &Certificate) -> Result<(), String> {
    let mut extensions = certificate.tbs_certificate.extensions.iter().flatten();
    let usage = extensions.find(|extension| extension.extn_id == EXTENDED_KEY_USAGE);
    let purposes = usage.map(|usage| (usage.critical, Vec::<ObjectIdentifier>::from_der(usage.extn_value.as_bytes())));
    match purposes {
        Some((true, Ok(purposes))) if purposes == [TIME_STAMPING_OID] => Ok(()),
        _ => Err("its certificate is not for time stamping, and for that alone".to_owned()),
    }
}

/// What a certificate's holder is called.
fn name(certificate: &Certificate) -> String {
    let subject = &certificate.tbs_certificate.subject;
    let parts = subject.0.iter().flat_map(|part| part.0.iter());
    let mut common =
        parts.filter(|part| part.oid == COMMON_NAME).map(|part| String::from_utf8_lossy(part.value.value()));
    let name = common.next_back().map_or_else(|| subject.to_string(), std::borrow::Cow::into_owned);
    // Shown on a terminal.
    name.chars().map(|at| if at.is_control() { '\u{fffd}' } else { at }).take(200).collect()
}

/// The ways to check a signature, by the identifiers of its algorithm and of its digest. webpki compares them with the certificate's key.
fn candidates(
    signature: ObjectIdentifier,
    digest: ObjectIdentifier,
) -> Vec<&'static dyn SignatureVerificationAlgorithm> {
    use algorithms::{
        ECDSA_P256_SHA256, ECDSA_P256_SHA384, ECDSA_P384_SHA256, ECDSA_P384_SHA384, ED25519,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
        RSA_PSS_2048_8192_SHA256_LEGACY_KEY, RSA_PSS_2048_8192_SHA384_LEGACY_KEY, RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
    };
    const SHA256: &str = "2.16.840.1.101.3.4.2.1";
    const SHA384: &str = "2.16.840.1.101.3.4.2.2";
    const SHA512: &str = "2.16.840.1.101.3.4.2.3";
    match (signature.to_string().as_str(), digest.to_string().as_str()) {
        // rsaEncryption leaves it to the digest; the others name theirs.
        ("1.2.840.113549.1.1.1", SHA256) | ("1.2.840.113549.1.1.11", _) => vec![RSA_PKCS1_2048_8192_SHA256],
        ("1.2.840.113549.1.1.1", SHA384) | ("1.2.840.113549.1.1.12", _) => vec![RSA_PKCS1_2048_8192_SHA384],
        ("1.2.840.113549.1.1.1", SHA512) | ("1.2.840.113549.1.1.13", _) => vec![RSA_PKCS1_2048_8192_SHA512],
        ("1.2.840.113549.1.1.10", SHA256) => vec![RSA_PSS_2048_8192_SHA256_LEGACY_KEY],
        ("1.2.840.113549.1.1.10", SHA384) => vec![RSA_PSS_2048_8192_SHA384_LEGACY_KEY],
        ("1.2.840.113549.1.1.10", SHA512) => vec![RSA_PSS_2048_8192_SHA512_LEGACY_KEY],
        ("1.2.840.10045.4.3.2", _) => vec![ECDSA_P256_SHA256, ECDSA_P384_SHA256],
        ("1.2.840.10045.4.3.3", _) => vec![ECDSA_P256_SHA384, ECDSA_P384_SHA384],
        ("1.3.101.112", _) => vec![ED25519],
        _ => vec![],
    }
}
