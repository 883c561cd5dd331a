//! A time-stamp token taken apart: `TimeStampResp`, the `TSTInfo` in it, and who signed it (RFC 3161, RFC 5652, RFC 5816).
//!
//! Says what a token holds, and whether its parts belong together; whose signature it is, the caller finds out.

use cms::cert::CertificateChoices;
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use der::{Decode, Encode, Reader, SliceReader, Tag, Tagged};
use x509_cert::Certificate;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
/// The certificate that signed, by its SHA-1 (RFC 2634) or another hash (RFC 5035).
const SIGNING_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.12");
const SIGNING_CERTIFICATE_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.47");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");

/// A token.
pub(super) struct Token {
    /// SHA-256 of what was stamped.
    pub(super) imprint: [u8; 32],
    pub(super) at_ns: i64,
    /// The certificate that is said to have signed.
    pub(super) signer: Certificate,
    /// All that came with it.
    pub(super) certificates: Vec<Certificate>,
    info: SignerInfo,
    /// The `TSTInfo` as it was signed.
    content: Vec<u8>,
}

impl Token {
    /// Takes the answer of an authority apart.
    pub(super) fn parse(reply: &[u8]) -> Result<Self, String> {
        let parts = signed_data(reply)?;
        let bad = |what: &str| format!("is no time stamp: {what}");
        if parts.encap_content_info.econtent_type != TST_INFO {
            return Err(bad("its content is something else"));
        }
        let content = parts.encap_content_info.econtent.as_ref().map(der::Any::decode_as::<OctetStringRef<'_>>);
        let Some(Ok(content)) = content else { return Err(bad("it has no content")) };
        let content = content.as_bytes().to_vec();
        let [info] = parts.signer_infos.0.as_slice() else { return Err(bad("it must have one signature")) };
        let certificates: Vec<Certificate> =
            parts.certificates.iter().flat_map(|set| set.0.iter()).filter_map(plain).collect();
        let (imprint, at_ns) = tst_info(&content)?;
        let signer = certificates.iter().find(|certificate| is_signer(info, certificate)).cloned();
        let signer = signer.ok_or("holds no certificate of who signed it; ask for one (certReq)")?;
        Ok(Self { imprint, at_ns, signer, certificates, info: info.clone(), content })
    }

    pub(super) fn signature_algorithm(&self) -> ObjectIdentifier {
        self.info.signature_algorithm.oid
    }

    pub(super) fn digest_algorithm(&self) -> ObjectIdentifier {
        self.info.digest_alg.oid
    }

    pub(super) fn signature(&self) -> &[u8] {
        self.info.signature.as_bytes()
    }

    /// What is signed: the attributes as a SET in DER (RFC 5652, section 5.4).
    pub(super) fn signed_bytes(&self) -> Result<Vec<u8>, String> {
        let attributes = self.info.signed_attrs.as_ref().ok_or("has no signed attributes")?;
        attributes.to_der().map_err(|error| format!("its signed attributes: {error}"))
    }

    /// Whether what is signed is about this content and this certificate.
    pub(super) fn check_attributes(&self) -> Result<(), String> {
        let content_type = self.attribute(CONTENT_TYPE).and_then(|value| value.decode_as::<ObjectIdentifier>().ok());
        if content_type != Some(TST_INFO) {
            return Err("what is signed is not about a time stamp".to_owned());
        }
        let digest =
            hash(self.digest_algorithm(), &self.content).ok_or("its digest is of a kind that is not known here")?;
        let said = self.attribute(MESSAGE_DIGEST).and_then(|value| value.decode_as::<OctetStringRef<'_>>().ok());
        if said.is_none_or(|said| said.as_bytes() != digest) {
            return Err("its content is not what was signed: it was changed".to_owned());
        }
        let encoded = self.signer.to_der().map_err(|error| format!("its certificate: {error}"))?;
        let named = match (self.attribute(SIGNING_CERTIFICATE_V2), self.attribute(SIGNING_CERTIFICATE)) {
            (Some(value), _) => names_certificate(value, SHA256, &encoded),
            (None, Some(value)) => names_certificate_by_sha1(value, &encoded),
            (None, None) => None,
        };
        if named == Some(true) { Ok(()) } else { Err("what is signed names another certificate".to_owned()) }
    }

    /// The one value of a signed attribute.
    fn attribute(&self, oid: ObjectIdentifier) -> Option<AnyRef<'_>> {
        let mut found =
            self.info.signed_attrs.iter().flat_map(|attributes| attributes.iter()).filter(|one| one.oid == oid);
        let (Some(attribute), None) = (found.next(), found.next()) else { return None };
        let [value] = attribute.values.as_slice() else { return None };
        Some(AnyRef::from(value))
    }
}

/// The `SignedData` of an answer (RFC 3161, section 2.4.2).
fn signed_data(reply: &[u8]) -> Result<SignedData, String> {
    let bad = |error: der::Error| format!("is no answer of a time-stamping authority: {error}");
    let response = AnyRef::from_der(reply).map_err(bad)?;
    let (status, token) = response
        .sequence(|reader| {
            let status = AnyRef::decode(reader)?;
            let token = if reader.is_finished() { None } else { Some(ContentInfo::decode(reader)?) };
            let status = status.sequence(|reader| {
                let number = u8::decode(reader)?;
                skip_rest(reader)?;
                Ok(number)
            })?;
            Ok((status, token))
        })
        .map_err(bad)?;
    // 0 granted, 1 granted with modifications.
    let Some(token) = token.filter(|_| status <= 1) else {
        return Err(format!("the authority refused: status {status} (RFC 3161, section 2.4.2)"));
    };
    if token.content_type != SIGNED_DATA {
        return Err("is no signed time stamp".to_owned());
    }
    token.content.decode_as().map_err(|error| format!("its signed part cannot be read: {error}"))
}

fn plain(choice: &CertificateChoices) -> Option<Certificate> {
    match choice {
        CertificateChoices::Certificate(certificate) => Some(certificate.clone()),
        CertificateChoices::Other(_) => None,
    }
}

/// Whether a signature says that it is of this certificate. By its key identifier any may be meant: then the signed hash of the certificate decides.
fn is_signer(info: &SignerInfo, certificate: &Certificate) -> bool {
    match &info.sid {
        SignerIdentifier::IssuerAndSerialNumber(named) => {
            named.issuer == certificate.tbs_certificate.issuer
                && named.serial_number == certificate.tbs_certificate.serial_number
        }
        SignerIdentifier::SubjectKeyIdentifier(named) => {
            let mut extensions = certificate.tbs_certificate.extensions.iter().flatten();
            let own = extensions.find(|extension| extension.extn_id.to_string() == "2.5.29.14");
            own.is_some_and(|own| {
                OctetStringRef::from_der(own.extn_value.as_bytes())
                    .is_ok_and(|own| own.as_bytes() == named.0.as_bytes())
            })
        }
    }
}

/// Imprint and time of a `TSTInfo`.
fn tst_info(content: &[u8]) -> Result<([u8; 32], i64), String> {
    let bad = |error: der::Error| format!("its content cannot be read: {error}");
    let (algorithm, imprint, time) = AnyRef::from_der(content)
        .and_then(|info| {
            info.sequence(|reader| {
                let version = u8::decode(reader)?;
                let _policy = ObjectIdentifier::decode(reader)?;
                let (algorithm, imprint) = AnyRef::decode(reader)?.sequence(|reader| {
                    let algorithm = AnyRef::decode(reader)?.sequence(|reader| {
                        let oid = ObjectIdentifier::decode(reader)?;
                        skip_rest(reader)?;
                        Ok(oid)
                    })?;
                    Ok((algorithm, OctetStringRef::decode(reader)?.as_bytes()))
                })?;
                let _serial = AnyRef::decode(reader)?;
                let time = AnyRef::decode(reader)?;
                skip_rest(reader)?;
                if version != 1 || time.tag() != Tag::GeneralizedTime {
                    return Err(Tag::GeneralizedTime.value_error());
                }
                Ok((algorithm, imprint, time.value()))
            })
        })
        .map_err(bad)?;
    let imprint = <[u8; 32]>::try_from(imprint).ok().filter(|_| algorithm == SHA256);
    let imprint = imprint.ok_or("is the time stamp of something else: not of a SHA-256")?;
    let at_ns = std::str::from_utf8(time).ok().and_then(general_time_ns);
    Ok((imprint, at_ns.ok_or("its time cannot be read")?))
}

/// `YYYYMMDDhhmmss[.f…]Z` (RFC 3161, section 2.4.2), which may have fractions of a second.
fn general_time_ns(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z')?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if seconds.len() != 14 || !is_plain(seconds) || !is_plain(fraction) {
        return None;
    }
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", seconds).ok()?;
    let at_s = jiff::tz::TimeZone::UTC.to_timestamp(time).ok()?.as_second();
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    at_s.checked_mul(1_000_000_000)?.checked_add(digits.parse().ok()?)
}

/// Whether the first certificate that a `SigningCertificateV2` names is this one. The algorithm is SHA-256 where it names none.
fn names_certificate(value: AnyRef<'_>, default: ObjectIdentifier, encoded: &[u8]) -> Option<bool> {
    let named = value.sequence(|reader| {
        let certs = AnyRef::decode(reader)?;
        skip_rest(reader)?;
        certs.sequence(|reader| {
            let first = AnyRef::decode(reader)?;
            skip_rest(reader)?;
            first.sequence(|reader| {
                let mut part = AnyRef::decode(reader)?;
                let mut algorithm = default;
                if part.tag() == Tag::Sequence {
                    algorithm = part.sequence(|reader| {
                        let oid = ObjectIdentifier::decode(reader)?;
                        skip_rest(reader)?;
                        Ok(oid)
                    })?;
                    part = AnyRef::decode(reader)?;
                }
                skip_rest(reader)?;
                Ok((algorithm, part.decode_as::<OctetStringRef<'_>>()?.as_bytes()))
            })
        })
    });
    let (algorithm, found) = named.ok()?;
    Some(hash(algorithm, encoded)? == found)
}

/// The same of a `SigningCertificate`, which earlier authorities write. SHA-1 is enough to tell an authority's own certificates apart; the chain is what is
/// believed.
fn names_certificate_by_sha1(value: AnyRef<'_>, encoded: &[u8]) -> Option<bool> {
    let sha1 = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, encoded);
    let named = value.sequence(|reader| {
        let certs = AnyRef::decode(reader)?;
        skip_rest(reader)?;
        certs.sequence(|reader| {
            let first = AnyRef::decode(reader)?;
            skip_rest(reader)?;
            first.sequence(|reader| {
                let hash = OctetStringRef::decode(reader)?.as_bytes();
                skip_rest(reader)?;
                Ok(hash)
            })
        })
    });
    Some(named.ok()? == sha1.as_ref())
}

fn skip_rest(reader: &mut SliceReader<'_>) -> der::Result<()> {
    while !reader.is_finished() {
        AnyRef::decode(reader)?;
    }
    Ok(())
}

fn hash(algorithm: ObjectIdentifier, bytes: &[u8]) -> Option<Vec<u8>> {
    let algorithm = match algorithm {
        SHA256 => &ring::digest::SHA256,
        SHA384 => &ring::digest::SHA384,
        SHA512 => &ring::digest::SHA512,
        _ => return None,
    };
    Some(ring::digest::digest(algorithm, bytes).as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_may_have_fractions_of_a_second() {
        assert_eq!(general_time_ns("20261123030203Z"), Some(1_795_402_923_000_000_000));
        assert_eq!(general_time_ns("20261123030203.5Z"), Some(1_795_402_923_500_000_000));
        assert_eq!(general_time_ns("20261123030203.0000000019Z"), Some(1_795_402_923_000_000_001));
        for text in [
            "",
            "Z",
            "20261123030203",
            "20261123030203+0700",
            "20261323030203Z",
            "2026112303020Z",
            "20261123030203.-1Z",
        ] {
            assert_eq!(general_time_ns(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused_without_a_panic() {
        let granted_without_token = [0x30, 0x05, 0x30, 0x03, 0x02, 0x01, 0x00];
        let refused = [0x30, 0x05, 0x30, 0x03, 0x02, 0x01, 0x02];
        for reply in [&b""[..], b"<html>", &[0x30], &[0x30, 0x82, 0xff, 0xff], &granted_without_token, &refused] {
            assert!(Token::parse(reply).is_err());
        }
        assert!(Token::parse(&refused).err().unwrap().contains("status 2"));
    }
}
