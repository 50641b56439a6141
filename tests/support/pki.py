"""An authority of our own, and certificates by it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Credentials:
    """The paths of a certificate and its key."""

    cert: str
    key: str


class Authority:
    """Signs certificates, and keeps all of them in a directory. ``ca``: the path of its own."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("authority")
        usage = x509.BasicConstraints(ca=True, path_length=0)
        made = self._builder(self._name, self._key).add_extension(usage, critical=True)
        self.ca = self._write("ca.pem", made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def issue(self, label: str, *addresses: str, common_name: str | None = None) -> Credentials:
        """Issue a certificate for addresses; without a common name unless one is given."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.IPAddress(ip_address(address)) for address in addresses]
        names = names or [x509.DNSName(label)]
        made = self._builder(_name(common_name), key)
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=common_name is None)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        cert = made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        return Credentials(cert=self._write(f"{label}.pem", cert), key=self._write(f"{label}.key", pem))

    def server_options(self, address: str) -> list[str]:
        """Give the options of an etcd that has a certificate and wants one of its clients."""
        own = self.issue(address, address)
        files = ("--cert-file", own.cert, "--key-file", own.key, "--trusted-ca-file", self.ca)
        return [*files, "--client-cert-auth"]

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - _DAY,
            not_valid_after=now + 2 * _DAY,
        )

    def _write(self, name: str, data: bytes) -> str:
        path = self._directory / name
        path.write_bytes(data)
        path.chmod(0o600)
        return str(path)


def _name(common_name: str | None) -> x509.Name:
    return x509.Name([] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
