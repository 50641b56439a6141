"""TLS 1.3 between two hosts that know each other's keys, and nobody else's word.

OpenSSL believes certificates, not keys. So each host shows a leaf that its own key signed, and whoever verifies it
makes an authority of his own that has the name and the key of the host that he knows: only what that key signed
leads to it. Names and keys are compared once more after the handshake, as a host can sign a leaf with any name in it.

No clock counts: certificates are valid for ever, the manifests say which keys are.

Source: RFC 8446; RFC 8410; X509_VERIFY_PARAM_set_flags(3), X509_V_FLAG_PARTIAL_CHAIN.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING

from reconciler.errors import PeerError
from reconciler.fleet.circle import Circle, Fellow
from reconciler.fleet.host_key import HostKey
from reconciler.model.identity import HostName
from reconciler.model.public_key import PublicLine, public_line, raw_key

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PROTOCOL = "vectl/1"
"""What is spoken inside, agreed on in the handshake. Source: RFC 7301."""

_UNIT = "vectl host key"
"""Tells the name of the key, which signs, from that of the host: what names itself as signer passes for self-signed."""


def client_context(circle: Circle, fellow: Fellow) -> ssl.SSLContext:
    """Prepare to talk to one host, and to no other."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, circle, (fellow,))


def server_context(circle: Circle) -> ssl.SSLContext:
    """Prepare to be talked to by any host of the circle."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, circle, circle.fellows.values())
    context.num_tickets = 0  # whoever comes back proves itself again
    return context


def proven(connection: ssl.SSLObject) -> tuple[HostName, PublicLine]:
    """Give the name and the key of the other end.

    Raises: PeerError, if it shows none of a kind that hosts have, or speaks another protocol.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    shown = connection.getpeercert(binary_form=True)
    if shown is None or connection.version() != "TLSv1.3":
        raise PeerError("verify peer: expected TLS 1.3 with a certificate")
    if connection.selected_alpn_protocol() != PROTOCOL:
        raise PeerError(f"verify peer: expected the protocol {PROTOCOL}; run the same version of vectl on both hosts")
    try:
        leaf = x509.load_der_x509_certificate(shown)
        names, key = leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME), leaf.public_key()
    except ValueError as err:
        raise PeerError("verify peer: expected a certificate of vectl") from err
    if len(names) != 1 or not isinstance(key, Ed25519PublicKey):
        raise PeerError("verify peer: expected a certificate of vectl")
    return HostName(str(names[0].value)), public_line(key.public_bytes_raw())


def _context(kind: int, circle: Circle, trusted: Iterable[Fellow]) -> ssl.SSLContext:
    context = ssl.SSLContext(kind)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the authority is the host's own; `proven` gives the name
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an authority need not have signed itself
    context.set_alpn_protocols([PROTOCOL])
    _load_own(context, circle.name, circle.key)
    authorities = "".join(_authority(fellow) for fellow in trusted)
    if authorities:
        context.load_verify_locations(cadata=authorities)
    return context


def _load_own(context: ssl.SSLContext, name: HostName, key: HostKey) -> None:
    """Load what this host shows, by a file that exists in memory only: the module takes nothing but paths."""
    from cryptography.hazmat.primitives import serialization

    form = serialization.PrivateFormat.PKCS8
    secret = key.private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    leaf = _certificate(_host(name), _key_of(name), key.private.public_key(), key.private, signs=False)
    fd = os.memfd_create("host-key", os.MFD_CLOEXEC)
    try:
        os.write(fd, leaf + secret)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _authority(fellow: Fellow) -> str:
    """Make the authority that only what a host's key signed leads to; who signed it itself is of no interest."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    key = Ed25519PublicKey.from_public_bytes(raw_key(fellow.key))
    nobody = Ed25519PrivateKey.generate()
    return _certificate(_key_of(fellow.name), _host(HostName("nobody")), key, nobody, signs=True).decode()


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: Ed25519PublicKey, signer: Ed25519PrivateKey, *, signs: bool
) -> bytes:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    constraints = x509.BasicConstraints(ca=signs, path_length=None)
    unsigned = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
    unsigned = unsigned.serial_number(x509.random_serial_number()).add_extension(constraints, critical=True)
    first, last = datetime.datetime(2000, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59)
    return (
        unsigned.not_valid_before(first)
        .not_valid_after(last)
        .sign(signer, None)
        .public_bytes(serialization.Encoding.PEM)
    )


def _host(name: HostName) -> x509.Name:
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _key_of(name: HostName) -> x509.Name:
    from cryptography import x509

    unit = x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, _UNIT)
    return x509.Name([unit, x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
