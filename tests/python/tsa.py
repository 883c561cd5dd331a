"""A time-stamping authority for tests, and forgeries that `openssl ts` would not make.

tsa.py make DIR                          keys, certificates and a configuration for `openssl ts -reply`
tsa.py forge DIR SIGNER IMPRINT TIME     a TimeStampResp signed by SIGNER.pem, whatever that certificate is for; TIME as YYYYMMDDhhmmssZ
"""

import datetime
import os
import subprocess
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def day(year):
    return datetime.datetime(year, 1, 1, tzinfo=datetime.timezone.utc)


def certificate(directory, name, common_name, issuer, purposes=None, years=(2020, 2060), key=None, is_critical=True):
    """Makes NAME.pem and NAME.key. Without purposes it is a root; without an issuer it signs itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    issuer_name, issuer_key = issuer or (subject, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(day(years[0]))
        .not_valid_after(day(years[1]))
        .add_extension(x509.BasicConstraints(ca=purposes is None, path_length=None), critical=True)
    )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=is_critical)
    made = builder.sign(issuer_key, hashes.SHA256())
    with open(os.path.join(directory, name + ".pem"), "wb") as file:
        file.write(made.public_bytes(serialization.Encoding.PEM))
    with open(os.path.join(directory, name + ".key"), "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return subject, key


def make(directory):
    stamping, web = [ExtendedKeyUsageOID.TIME_STAMPING], [ExtendedKeyUsageOID.SERVER_AUTH]
    root = certificate(directory, "root", "Test Root", None)
    middle = certificate(directory, "middle", "Test Intermediate", root)
    expired = certificate(directory, "expired-root", "Expired Root", None, years=(2010, 2021))
    certificate(directory, "ec", "Test TSA", root, stamping)
    certificate(directory, "rsa", "Test RSA TSA", middle, stamping, key=rsa.generate_private_key(65537, 3072))
    certificate(directory, "web", "Test TSA", root, web)
    certificate(directory, "both", "Test TSA", root, stamping + web)
    certificate(directory, "loose", "Test TSA", root, stamping, is_critical=False)
    certificate(directory, "over", "Test TSA", root, stamping, years=(2010, 2022))
    certificate(directory, "under-expired", "Test TSA", expired, stamping)
    certificate(directory, "self-signed", "Test TSA", None, stamping)
    for name, precision in (("ec", 3), ("rsa", 0)):
        with open(os.path.join(directory, name + ".conf"), "w") as file:
            file.write(
                f"[tsa]\ndefault_tsa = one\n[one]\nserial = {directory}/serial\nsigner_cert = {directory}/{name}.pem\n"
                f"signer_key = {directory}/{name}.key\ncerts = {directory}/middle.pem\nsigner_digest = sha256\n"
                f"default_policy = 1.2.3.4.1\ndigests = sha256\nclock_precision_digits = {precision}\naccuracy = secs:1\n"
            )


def der(tag, *parts):
    content = b"".join(parts)
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([0x82]) + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def forge(directory, signer, imprint, time):
    sha256 = der(0x30, bytes.fromhex("0609608648016503040201"), b"\x05\x00")
    info = der(
        0x30,
        b"\x02\x01\x01",
        bytes.fromhex("06042a030401"),
        der(0x30, sha256, der(0x04, bytes.fromhex(imprint))),
        b"\x02\x01\x07",
        der(0x18, time.encode()),
    )
    path = os.path.join(directory, signer)
    command = ["openssl", "cms", "-sign", "-binary", "-nodetach", "-cades", "-md", "sha256", "-outform", "DER"]
    command += ["-econtent_type", "1.2.840.113549.1.9.16.1.4", "-signer", path + ".pem", "-inkey", path + ".key"]
    token = subprocess.run(command, input=info, stdout=subprocess.PIPE, check=True).stdout
    sys.stdout.buffer.write(der(0x30, der(0x30, b"\x02\x01\x00"), token))


if __name__ == "__main__":
    {"make": make, "forge": forge}[sys.argv[1]](*sys.argv[2:])
