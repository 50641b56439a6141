"""The policy file of the host: read from a file that only root can write, strictly, whole or not at all."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from reconciler.errors import VectlError
from reconciler.kernel import files
from reconciler.model.fleet import Finding
from reconciler.model.network import Subnet
from reconciler.model.policy import (
    DEFAULT_POLICY,
    DEVICE_ACCESS,
    FEATURES,
    UNREVIEWED_IMPACTS,
    DeviceRule,
    MountRule,
    Policy,
    nothing_allowed,
)
from reconciler.model.probe import Level, Probe
from reconciler.state import scalars
from reconciler.state.settings import Section, parse_settings, refuse

_KEYS = ("mounts", "devices", "nics", "features", "addresses", "maxVEs", "requireReviewed", "reviewedBelow")


def load_policy(file: str) -> Policy:
    """Load the policy of this host; the default, if there is no such file.

    Raises: ConfigError, naming every mistake with file, line and column; RefusedError, if others than root can write
    it; KernelError.
    """
    data = files.read_trusted_if_exists(file)
    return DEFAULT_POLICY if data is None else parse_policy(data, file=file)


def parse_policy(data: bytes, *, file: str) -> Policy:
    """Parse the text of a policy file: what it does not name stays at its default.

    Raises: ConfigError.
    """
    findings: list[Finding] = []
    top = Section(parse_settings(data, file=file), findings)
    places = {key: found.place.line for key in _KEYS if (found := top.setting(key)) is not None}
    features = top.values("features", _feature)
    policy = Policy(
        mounts=tuple(map(_mount, top.sections("mounts") or ())),
        devices=_devices(top),
        nics=top.values("nics", scalars.text) or (),
        features=DEFAULT_POLICY.features if features is None else frozenset(features),
        addresses=top.values("addresses", _network),
        ves_max=top.value("maxVEs", scalars.count(0, 100_000)),
        require_reviewed=top.value("requireReviewed", _flag) or False,
        reviewed_below=UNREVIEWED_IMPACTS[top.value("reviewedBelow", _unreviewed) or "none"],
        file=file,
        lines=places,
    )
    top.end()
    refuse(findings)
    return policy


def examine(file: str) -> Probe:
    """Examine whether the policy file can be used."""
    try:
        policy = load_policy(file)
    except VectlError as error:
        remedy = "mend it: while it is so, an agent that starts gives VEs nothing that they do not have"
        return Probe(name="policy", level=Level.WARN, found=str(error), remedy=remedy)
    found = f"{policy.file} bounds what manifests may ask for" if policy.file else f"no {file}: the default is in force"
    return Probe(name="policy", level=Level.OK, found=found)


@dataclass(slots=True)
class PolicyFile:
    """Follows the policy file: one that breaks leaves the last good one in force, a broken first one allows nothing."""

    path: str
    in_force: Policy | None = None
    problem: str = ""
    _parsed: tuple[bytes | None, Policy] | None = None

    def look(self) -> Policy:
        """Read the file as it is now; give the policy in force. ``problem`` says why it is not what the file says."""
        try:
            self.in_force, self.problem = self._load(), ""
        except VectlError as error:
            self.problem = str(error)
            if self.in_force is None or self.in_force.broken:
                self.in_force = nothing_allowed(
                    self.problem, file=self.path, require_reviewed=_may_ask_for_review(self.path)
                )
        return self.in_force

    def known(self) -> Policy:
        """Give the policy in force, which is read if it never was."""
        return self.look() if self.in_force is None else self.in_force

    def _load(self) -> Policy:
        """Load the file, and parse it only when it says something new."""
        data = files.read_trusted_if_exists(self.path)
        if self._parsed is None or self._parsed[0] != data:
            self._parsed = data, DEFAULT_POLICY if data is None else parse_policy(data, file=self.path)
        return self._parsed[1]


def _may_ask_for_review(path: str) -> bool:
    """Say whether a policy that cannot be used may ask for a review: a typing error must not take that back."""
    try:
        return b"requireReviewed" in (files.read_bytes_if_exists(path) or b"")
    except VectlError:
        return True


def _mount(section: Section) -> MountRule:
    section.require("source")
    source = section.value("source", scalars.absolute_path)
    rule = MountRule(source=source or "", read_only=section.value("readOnly", _flag) or False)
    section.end()
    return rule


def _devices(top: Section) -> tuple[DeviceRule, ...]:
    found = top.sections("devices")
    return DEFAULT_POLICY.devices if found is None else tuple(map(_device, found))


def _device(section: Section) -> DeviceRule:
    section.require("path")
    path = section.value("path", _device_path)
    rule = DeviceRule(path=path or "", access=section.value("access", _access) or "rw")
    section.end()
    return rule


def _device_path(text: str) -> str:
    if not scalars.absolute_path(text).startswith("/dev/"):
        raise ValueError(f"expected a path below /dev, got {text!r}")
    return text


def _access(text: str) -> str:
    if not text or not set(text) <= set(DEVICE_ACCESS) or len(set(text)) != len(text):
        raise ValueError(f"expected some of {', '.join(DEVICE_ACCESS)}, such as rw, got {text!r}")
    return text


def _feature(text: str) -> str:
    if text not in FEATURES:
        raise ValueError(f"expected {' or '.join(sorted(FEATURES))}, got {text!r}")
    return text


def _network(text: str) -> Subnet:
    try:
        return ipaddress.ip_network(text)
    except ValueError as err:
        raise ValueError(f"expected a network such as 10.20.0.0/24, got {text!r}") from err


def _unreviewed(text: str) -> str:
    if text not in UNREVIEWED_IMPACTS:
        raise ValueError(f"expected one of {', '.join(UNREVIEWED_IMPACTS)}, got {text!r}")
    return text


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"expected true or false, got {text!r}")
    return text == "true"
