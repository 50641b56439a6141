"""Policy: what manifests may ask of a host, in the words of its root, who writes it outside of any repository."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from reconciler.model.action import CONSENT_IMPACTS, Impact
from reconciler.model.devices import FUSE
from reconciler.model.fleet import VeSpec
from reconciler.model.network import Subnet
from reconciler.model.paths import key_in_path

DEVICE_ACCESS = ("r", "w", "m")
"""Read, write, make the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MountRule:
    """VEs may see what is at or below ``source``, a directory of the host; ``read_only``: only without writing."""

    source: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRule:
    """VEs may have the device file ``path``, a pattern of fnmatch(3) by path component, with at most ``access``."""

    path: str
    access: str = "rw"


SAFE_DEVICES = (DeviceRule(path="/dev/net/tun"), DeviceRule(path="/dev/fuse"))
"""What is of use in a user namespace, and gives no more there than the namespace itself."""

FEATURES = frozenset({"nesting", "fuse"})
"""What a VE may do beyond the usual, by the name of its field below ``features``."""


UNREVIEWED_IMPACTS: Mapping[str, Impact | None] = {
    "none": None,
    **{impact.word: impact for impact in Impact if impact is not Impact.NONE and impact not in CONSENT_IMPACTS},
}
"""What may be allowed to differ from a review at most, by the word for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What may be asked of this host; the default is what holds where its root says nothing.

    ``addresses``: the networks in which addresses of VEs lie; None: anywhere. ``nics``: patterns of the host's
    interfaces that may move into a VE. ``ves_max``: how many VEs there may be; None: any number.
    ``require_reviewed``: whether what manifests want is done only if people reviewed it; ``reviewed_below``: the
    highest impact of what may differ from that, None: nothing may. ``file``: where it was read, "" for the default;
    ``lines``: of it, by key. ``broken``: why the file does not hold; then nothing is allowed that was not carried out
    before.
    """

    mounts: tuple[MountRule, ...] = ()
    devices: tuple[DeviceRule, ...] = SAFE_DEVICES
    nics: tuple[str, ...] = ()
    features: frozenset[str] = FEATURES
    addresses: tuple[Subnet, ...] | None = None
    ves_max: int | None = None
    require_reviewed: bool = False
    reviewed_below: Impact | None = None
    file: str = ""
    lines: Mapping[str, int] = field(default_factory=dict, compare=False)
    broken: str = ""

    def allows_mount(self, source: str, *, read_only: bool) -> bool:
        """Say whether a directory of the host may be seen in a VE. What it leads to is for the host to check."""
        return any(_is_at_or_below(source, rule.source) and (read_only or not rule.read_only) for rule in self.mounts)

    def allows_device(self, path: str, access: str) -> bool:
        """Say whether a VE may have a device file, with such an access."""
        return any(_matches(path, rule.path) and set(access) <= set(rule.access) for rule in self.devices)

    def allows_nic(self, name: str) -> bool:
        """Say whether an interface of the host may move into a VE."""
        return any(fnmatchcase(name, pattern) for pattern in self.nics)


DEFAULT_POLICY = Policy()

_DEPTH = 8
"""Of the deepest device file that there is, in directories below the root. Units: path components."""

EVERYTHING_ALLOWED = Policy(
    mounts=(MountRule(source="/"),),
    devices=tuple(DeviceRule(path="/*" * depth, access="".join(DEVICE_ACCESS)) for depth in range(1, _DEPTH + 1)),
    nics=("*",),
)
"""What a plan goes by that is made where no host's root has a say; the host's own holds when it is carried out."""


def nothing_allowed(broken: str, *, file: str, require_reviewed: bool = False) -> Policy:
    """Give the policy of a host whose own cannot be read. ``require_reviewed``: whether it may ask for that."""
    nothing = Policy(devices=(), features=frozenset(), addresses=(), ves_max=0, file=file, broken=broken)
    return replace(nothing, require_reviewed=require_reviewed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """What a VE asks for and may not have. ``path``: of the field, as the VE's record names it."""

    path: str
    message: str
    remedy: str


def violations(policy: Policy, spec: VeSpec) -> Iterator[Violation]:
    """Name everything that a VE asks for beyond the policy of the host."""
    if spec.nesting and "nesting" not in policy.features:
        yield feature_violation(policy, "nesting")
    if spec.fuse and "fuse" not in policy.features:
        yield replace(feature_violation(policy, "fuse"), path=f"devices.{key_in_path(FUSE)}")  # as it is recorded
    if policy.addresses is not None:
        yield from _address_violations(policy, policy.addresses, spec)
    for target, mount in spec.mounts.items():
        path = f"mounts.{key_in_path(target)}"
        found = mount_violation(policy, path, mount.source, read_only=mount.read_only)
        if found is not None:
            yield found
    yield from _device_violations(policy, spec)


def _device_violations(policy: Policy, spec: VeSpec) -> Iterator[Violation]:
    for device, access in spec.devices.nodes.items():
        if spec.fuse and (device, access) == (FUSE, "rw"):
            continue  # the feature's, and judged as that
        found = device_violation(policy, f"devices.{key_in_path(device)}", device, access)
        if found is not None:
            yield found
    for nic in sorted(spec.devices.nics):
        found = nic_violation(policy, f"devices.{key_in_path(nic)}", nic)
        if found is not None:
            yield found


def _address_violations(policy: Policy, allowed: tuple[Subnet, ...], spec: VeSpec) -> Iterator[Violation]:
    for name, link in spec.network.interfaces.items():
        for address in sorted(link.addresses, key=str):
            if not any(address.version == pool.version and address.ip in pool for pool in allowed):
                message = f"address {address.ip} is in none of {_listed(map(str, allowed))}"
                yield _violation(policy, "addresses", f"interfaces.{name}.addresses", message)


def feature_violation(policy: Policy, name: str) -> Violation:
    """Say that a feature is not among those that VEs may have."""
    message = f"{name} is none of {_listed(sorted(policy.features))}"
    return _violation(policy, "features", f"features.{name}", message)


def mount_violation(policy: Policy, path: str, source: str, *, read_only: bool) -> Violation | None:
    """Say why a directory of the host may not be seen in a VE; None, if it may."""
    if policy.allows_mount(source, read_only=read_only):
        return None
    if policy.allows_mount(source, read_only=True):
        return _violation(policy, "mounts", path, f"{source} may be mounted read-only only")
    return _violation(policy, "mounts", path, f"{source} lies in none of {_listed(r.source for r in policy.mounts)}")


def device_violation(policy: Policy, path: str, device: str, access: str) -> Violation | None:
    """Say why a device file may not be in a VE; None, if it may."""
    if policy.allows_device(device, access):
        return None
    rules = (f"{rule.path} ({rule.access})" for rule in policy.devices)
    return _violation(policy, "devices", path, f"{device} ({access}) is none of {_listed(rules)}")


def nic_violation(policy: Policy, path: str, nic: str) -> Violation | None:
    """Say why an interface of the host may not move into a VE; None, if it may."""
    if policy.allows_nic(nic):
        return None
    return _violation(policy, "nics", path, f"{nic} is none of {_listed(policy.nics)}")


def _violation(policy: Policy, key: str, path: str, message: str) -> Violation:
    return Violation(path=path, message=f"{path}: {message} ({where(policy, key)})", remedy=remedy(policy, key))


def where(policy: Policy, key: str) -> str:
    """Name the rule: the file and the line that say it, or the default."""
    if policy.broken:
        return f"policy not usable: {policy.broken}"
    if key not in policy.lines:
        return f"default of '{key}' in the policy of this host"
    return f"{policy.file}:{policy.lines[key]}"


def remedy(policy: Policy, key: str) -> str:
    """Say what its root can do to allow more."""
    if policy.broken:
        return "mend the policy of this host"
    return f"remove it, or let root of the host allow it under '{key}' in {policy.file or 'its policy file'}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words) or "(nothing)"


def _is_at_or_below(path: str, top: str) -> bool:
    """Compare by whole components; a path that is not in its plain form is nowhere."""
    return posixpath.normpath(path) == path and (path == top or path.startswith(f"{top.rstrip('/')}/"))


def _matches(path: str, pattern: str) -> bool:
    """Match a path by component: a star does not reach into a directory below."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))
