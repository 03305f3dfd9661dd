"""Test certificates: an authority, and servers and clients on loopback."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_LOOPBACK = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]


class Authority:
    """Test certificate authority, with its files in `folder`; `ca` is its PEM certificate."""

    def __init__(self, folder: Path, name: str = "authority"):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        self.ca = folder / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._write(self.ca, name, self._key)

    def issue(self, name: str) -> tuple[Path, Path]:
        """Issues `<name>.pem` and `<name>.key` and returns their paths."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert, key_file = self.files(name)
        self._write(cert, name, key)
        key_file.write_bytes(private_pem(key))
        return cert, key_file

    def files(self, name: str) -> tuple[Path, Path]:
        """Paths of `issue`."""
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def _write(self, path: Path, name: str, key: ec.EllipticCurvePrivateKey) -> None:
        now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.BasicConstraints(ca=key is self._key, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(_LOOPBACK), critical=False)
            # Python 3.13 wants these of a chain, and of an authority the permission to sign.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(_usage(signs_certificates=key is self._key), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def private_pem(
    key: ec.EllipticCurvePrivateKey,
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption(),  # noqa: B008
) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    allowed = {"digital_signature", *({"key_cert_sign", "crl_sign"} if signs_certificates else ())}
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in allowed for name in every})


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
