"""Field types: a parser or a pattern for each thing people write, with its JSON Schema.

A schema's ``title`` is the type's name for people. Strings with a pattern are matched by pydantic's own engine, which
takes linear time; what such a pattern means in words is in `PATTERN_WORDS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeAlias, TypeVar

from pydantic import AfterValidator, Field, PlainValidator, Strict, StringConstraints, WithJsonSchema

from reconciler.manifests import parsers
from reconciler.model.network import Address, Interface, Subnet

T = TypeVar("T")

_NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_LABEL_KEY = r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$"
_LABEL_VALUE = r"^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$"
_DOMAIN = r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$"
_INTERFACE = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$"
_PATH = r"^(/[^/\n]+)+/?$|^/$"
_PACKAGE = r"^[a-z0-9][a-z0-9+.-]{1,127}$"
_SUITE = r"^[a-z][a-z0-9.-]{1,63}$"
_SHA256 = r"^[0-9a-f]{64}$"
_OCI_DIGEST = r"^sha256:[0-9a-f]{64}$"
_SERVER = r"^https?://[A-Za-z0-9.:_\[\]-]+(/[^\s?#@]*)?$"
_MIRROR = (
    r"^(deb (\[signed-by=/(usr/share|etc/apt)/keyrings/[A-Za-z0-9_+-][A-Za-z0-9._+-]*\] )?"
    r"(https?://[A-Za-z0-9.:_\[\]-]+|file://)(/[^\s?#@\[\]]*)?( [A-Za-z0-9./_-]+)+"
    r"|(https?://[A-Za-z0-9.:_\[\]-]+|file://)(/[^\s?#@\[\]]*)?)$"
)
"""One line of apt's, with no other option than the key: what is installed runs its scripts as root of the host."""
_URL = r"^(https?://[A-Za-z0-9.:_\[\]-]+|file://)/[^\s#]+$"
_OCI_IMAGE = r"^[A-Za-z0-9][^\s@]{0,1023}$"
_WORD = r"^[A-Za-z0-9._-]{1,63}$"
_SNAPSHOT = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
_SIZE = r"[0-9]+(\.[0-9]+)?(K|M|G|T|Ki|Mi|Gi|Ti)?"
_ED25519 = "AAAAC3NzaC1lZDI1NTE5AAAAI[A-Za-z0-9+/]{43}"
_SUBNET = "^[0-9A-Fa-f.:]+/[0-9]{1,3}$"

PATTERN_WORDS: Mapping[str, str] = {
    _NAME: "a name of at most 63 lower-case letters, digits and '-', with a letter or digit at both ends",
    _LABEL_KEY: "a label of at most 63 letters, digits, '.', '_' and '-'",
    _LABEL_VALUE: "a label's value of at most 63 letters, digits, '.', '_' and '-'",
    _DOMAIN: "a host name such as web1.example.org",
    _INTERFACE: "an interface name of at most 15 letters, digits, '_', '.' and '-'",
    _PATH: "an absolute path such as /srv/data",
    _PACKAGE: "the name of a Debian package",
    _SUITE: "the name of a suite, such as trixie",
    _SHA256: "a SHA-256 of 64 hexadecimal digits",
    _OCI_DIGEST: "a digest of the form sha256: and 64 hexadecimal digits",
    _SERVER: "an address such as https://images.example.org, without a user's name",
    _MIRROR: "an address such as https://deb.example.org/debian, or a line of apt's with no option but signed-by",
    _URL: "an address such as https://example.org/a.tar.xz or file:///srv/a.tar, without a user's name",
    _OCI_IMAGE: "the name of an image such as registry.example.org/app, without a digest",
    _WORD: "a word of at most 63 letters, digits, '.', '_' and '-'",
    _SNAPSHOT: "a snapshot's name of at most 63 letters, digits, '.', '_' and '-', with a letter or digit first",
}
"""What a string that does not match was expected to be."""


def _shape(title: str, pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"title": title, "type": "string", "pattern": pattern})


def _size_shape(title: str, pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"title": title, "type": ["integer", "string"], "minimum": 0, "pattern": pattern})


def _limit_shape(title: str, number: str, minimum: float) -> WithJsonSchema:
    return WithJsonSchema({"title": title, "anyOf": [{"type": number, "minimum": minimum}, {"const": "unlimited"}]})


Items: TypeAlias = Annotated[tuple[T, ...], Strict(False)]
"""A list. Lax as to the container alone: YAML gives a list where a frozen value holds a tuple."""

Name = Annotated[str, StringConstraints(pattern=_NAME)]
LabelKey = Annotated[str, StringConstraints(pattern=_LABEL_KEY)]
LabelValue = Annotated[str, StringConstraints(pattern=_LABEL_VALUE)]
Hostname = Annotated[str, StringConstraints(pattern=_DOMAIN, max_length=64)]
"""Source: Linux include/uapi/linux/utsname.h, __NEW_UTS_LEN."""
Domain = Annotated[str, StringConstraints(pattern=_DOMAIN, max_length=253)]
LinkName = Annotated[str, StringConstraints(pattern=_INTERFACE), AfterValidator(parsers.interface_name)]
Note = Annotated[str, StringConstraints(max_length=1024)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Word = Annotated[str, StringConstraints(pattern=_WORD)]
SnapshotWord = Annotated[str, StringConstraints(pattern=_SNAPSHOT)]
NewSnapshot = Annotated[SnapshotWord, AfterValidator(parsers.new_snapshot)]
AbsolutePath = Annotated[str, StringConstraints(pattern=_PATH, max_length=4095), AfterValidator(parsers.without_dots)]
Package = Annotated[str, StringConstraints(pattern=_PACKAGE)]
Suite = Annotated[str, StringConstraints(pattern=_SUITE)]
Mirror = Annotated[str, StringConstraints(pattern=_MIRROR, max_length=1024)]
Sha256 = Annotated[str, StringConstraints(pattern=_SHA256)]
Url = Annotated[str, StringConstraints(pattern=_URL, max_length=2048)]
ServerUrl = Annotated[str, StringConstraints(pattern=_SERVER, max_length=1024)]
OciImage = Annotated[str, StringConstraints(pattern=_OCI_IMAGE)]
OciDigest = Annotated[str, StringConstraints(pattern=_OCI_DIGEST)]
Port = Annotated[int, Field(ge=1, le=65535)]
Mtu = Annotated[int, Field(ge=68, le=65535)]
"""Source: RFC 791, section 3.2: 68 bytes is what every module must forward."""

Size = Annotated[int, PlainValidator(parsers.size), _size_shape("size", f"^{_SIZE}$")]
SizeLimit = Annotated[
    int | None,
    PlainValidator(parsers.or_unlimited(parsers.size)),
    _size_shape("size or unlimited", f"^({_SIZE}|unlimited)$"),
]
IoLimit = Annotated[
    int | None,
    PlainValidator(parsers.or_unlimited(parsers.io_rate)),
    _size_shape("size or unlimited", f"^({_SIZE}|unlimited)$"),
]
CountLimit = Annotated[
    int | None,
    PlainValidator(parsers.or_unlimited(parsers.count)),
    _limit_shape("number or unlimited", "integer", 1),
]
Cpus = Annotated[int, PlainValidator(parsers.cpus), WithJsonSchema({"title": "CPUs", "type": "number", "minimum": 0})]
CpuLimit = Annotated[
    int | None,
    PlainValidator(parsers.or_unlimited(parsers.cpu_limit)),
    _limit_shape("CPUs or unlimited", "number", 0.01),
]
NumberSet = Annotated[
    frozenset[int],
    PlainValidator(parsers.number_set),
    _shape("list of numbers", "^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$"),
]
Duration = Annotated[float, PlainValidator(parsers.duration), _shape("duration", r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d|w)$")]
BitRateLimit = Annotated[
    int | None,
    PlainValidator(parsers.or_unlimited(parsers.bit_rate)),
    _shape("bit rate or unlimited", r"^([0-9]+(\.[0-9]+)?(bit|Kbit|Mbit|Gbit|Tbit)|unlimited)$"),
]
PortRange = Annotated[
    tuple[int, int],
    PlainValidator(parsers.port_range),
    WithJsonSchema(
        {
            "title": "port or range",
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 65535},
                {"type": "string", "pattern": "^[0-9]{1,5}-[0-9]{1,5}$"},
            ],
        }
    ),
]
Target = Annotated[
    tuple[str, int],
    PlainValidator(parsers.target),
    _shape("VE:port", "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?:[0-9]{1,5}$"),
]
IpAddress = Annotated[Address, PlainValidator(parsers.address), _shape("address", "^[0-9A-Fa-f.:]+$")]
IpInterface = Annotated[Interface, PlainValidator(parsers.interface), _shape("address/prefix", _SUBNET)]
IpSubnet = Annotated[Subnet, PlainValidator(parsers.subnet), _shape("subnet", _SUBNET)]
Mac = Annotated[
    str | None,
    PlainValidator(parsers.mac),
    _shape("MAC address or auto", "^(auto|[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5})$"),
]
PublicKey = Annotated[str, PlainValidator(parsers.public_key), _shape("public key", f"^ssh-ed25519 +{_ED25519}( .*)?$")]
UidText = Annotated[str, PlainValidator(parsers.uid), _shape("UUID", "^[0-9A-Fa-f-]{36}$")]
Init = Annotated[
    tuple[str, ...],
    PlainValidator(parsers.init),
    WithJsonSchema(
        {
            "title": "path or list of words",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
        }
    ),
]
