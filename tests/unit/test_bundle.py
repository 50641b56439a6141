"""Claims about the runtime configuration of a VE."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from reconciler.host import bundle
from reconciler.host.bundle import Bind, BundleSpec, Device

SPEC = BundleSpec(hostname="web1", rootfs="/r", id_base=100_000, cgroup="/vectl/u1")


def config(spec: BundleSpec = SPEC) -> Any:
    return json.loads(json.dumps(bundle.build_config(spec)))


def test_every_namespace_is_new() -> None:
    namespaces = config()["linux"]["namespaces"]
    assert all(set(namespace) == {"type"} for namespace in namespaces)
    assert {n["type"] for n in namespaces} == {"pid", "ipc", "uts", "mount", "cgroup", "network", "user"}


def test_root_of_the_ve_is_nobody_on_the_host() -> None:
    expected = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
    assert config()["linux"]["uidMappings"] == config()["linux"]["gidMappings"] == expected


def test_processes_live_below_the_cgroup_that_holds_the_limits() -> None:
    linux = config()["linux"]
    assert linux["cgroupsPath"] == "/vectl/u1/ve"
    assert set(linux["resources"]) == {"devices"}


def test_devices_are_denied_but_for_the_harmless_and_the_asked() -> None:
    tun = Device(path="/dev/net/tun", major=10, minor=200)
    rules = config(replace(SPEC, devices=(tun,)))["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    assert rules[-1] == {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "rw"}
    assert {rule["type"] for rule in rules[1:]} == {"c"}
    assert config(replace(SPEC, devices=(tun,)))["linux"]["devices"][0]["path"] == "/dev/net/tun"


def test_nothing_of_the_host_is_open_in_init() -> None:
    process = config()["process"]
    assert process["terminal"] is False
    assert process["cwd"] == "/"
    assert process["oomScoreAdj"] == 0


def test_a_newline_stays_inside_its_value() -> None:
    hostile = replace(SPEC, hostname='x"\n, "evil": "', env={"A": "1\nB=2"})
    assert config(hostile)["hostname"] == 'x"\n, "evil": "'
    assert config(hostile)["process"]["env"] == ["A=1\nB=2"]


@pytest.mark.parametrize(("kind", "fstype"), [("v2", "cgroup"), ("hybrid", "cgroup2")])
def test_the_ves_own_cgroups_are_shown_as_the_host_has_them(kind: bundle.CgroupMount, fstype: str) -> None:
    mounts = {mount["destination"]: mount for mount in config(replace(SPEC, cgroup_mount=kind))["mounts"]}
    assert mounts["/sys/fs/cgroup"]["type"] == fstype
    assert "rw" in mounts["/sys/fs/cgroup"]["options"]


def test_without_one_no_cgroup_is_mounted() -> None:
    assert "/sys/fs/cgroup" not in {mount["destination"] for mount in config()["mounts"]}


def test_binds_come_last_and_carry_no_devices() -> None:
    bind = Bind(source="/var/lib/lxcfs/proc/meminfo", target="/proc/meminfo", read_only=True)
    last = config(replace(SPEC, binds=(bind,)))["mounts"][-1]
    assert last["destination"] == "/proc/meminfo"
    assert {"bind", "nosuid", "nodev", "ro"} <= set(last["options"])


def test_criu_is_told_its_options_only_if_there_are_some() -> None:
    assert "annotations" not in config()
    assert config(replace(SPEC, criu_config="/c"))["annotations"] == {"org.criu.config": "/c"}


def test_nesting_lifts_the_ban_of_user_namespaces() -> None:
    def denied(spec: BundleSpec) -> set[str]:
        return {name for rule in config(spec)["linux"]["seccomp"]["syscalls"] for name in rule["names"]}

    assert "unshare" in denied(SPEC)
    assert "unshare" not in denied(replace(SPEC, nesting=True))
