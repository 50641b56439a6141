"""Settings: what fields of a manifest become in the kernel, and how what is seen there is told."""

from __future__ import annotations

from dataclasses import replace

from reconciler.model.identity import VeName
from reconciler.model.settings import OTHER_SOCKETS, TCP_SOCKETS, TERMINALS, SettingsObservation, SettingsSpec
from reconciler.plan import settings
from reconciler.twin.host import ALL_CAPABILITIES
from tests.support.rig import fleet_of, ve

WITHOUT_BPF = replace(ALL_CAPABILITIES, why_not={"beancounters.numtcpsock.limit": "no BPF"})


def _spec(text: str) -> SettingsSpec:
    return fleet_of(ve("web1", text)).ves[VeName("web1")].settings


def test_shared_memory_is_limited_in_pages_by_the_lesser_of_both_fields() -> None:
    text = "ipc: {shmall: 64Mi}, beancounters: {shmpages: {limit: %s}}"
    assert _spec(text % "32Mi").values["kernel.shmall"] == str((32 << 20) // 4096)
    assert _spec(text % "unlimited").values["kernel.shmall"] == str((64 << 20) // 4096)


def test_a_field_of_several_numbers_leaves_the_others_as_the_kernel_makes_them() -> None:
    assert _spec("ipc: {semmni: 77}").values == {"kernel.sem": "32000 1024000000 500 77"}


def test_buffers_of_a_socket_are_bounded_in_all_their_sizes() -> None:
    text = "beancounters: {tcpsndbuf: {limit: 8Ki}, tcprcvbuf: {limit: 1Mi}}"
    values = _spec(text).values
    assert values["net.ipv4.tcp_wmem"] == "4096 8192 8192"
    assert values["net.ipv4.tcp_rmem"] == "4096 131072 1048576"


def test_groups_end_where_the_ids_of_a_ve_end() -> None:
    assert _spec('sysctls: {net.ipv4.ping_group_range: "0  2147483647"}').values == {
        "net.ipv4.ping_group_range": "0 65535"
    }


def test_what_is_only_observed_becomes_no_setting() -> None:
    spec = _spec("beancounters: {numfile: {barrier: 10, limit: 20}}")
    assert spec.values == {}
    assert spec.declared == {"beancounters.numfile.barrier": 10, "beancounters.numfile.limit": 20}


def test_what_is_no_longer_asked_for_returns() -> None:
    seen = SettingsObservation(values={TERMINALS: "3", "net.core.somaxconn": "9"})
    found = list(settings.differences(_spec("beancounters: {numpty: {limit: 3}}"), seen, ALL_CAPABILITIES))
    assert found == [("sysctls.net.core.somaxconn", None, "9")]


def test_a_limit_that_the_host_cannot_hold_is_told_and_not_tried() -> None:
    spec = _spec("beancounters: {numtcpsock: {limit: 5}, numothersock: {limit: 6}}")
    assert settings.unenforceable(spec, WITHOUT_BPF) == {"beancounters.numtcpsock.limit": "no BPF"}
    assert settings.wanted(spec, WITHOUT_BPF) == {OTHER_SOCKETS: "6"}


def test_what_is_seen_is_told_in_the_units_of_the_manifest() -> None:
    seen = SettingsObservation(
        values={"kernel.shmall": "10", TCP_SOCKETS: "unlimited", "net.ipv4.tcp_wmem": "4096 8192 9000", "net.x": "1 2"}
    )
    assert settings.observed_values(seen) == {
        "ipc.shmall": 40960,
        "beancounters.numtcpsock.limit": None,
        "beancounters.tcpsndbuf.limit": 9000,
        "sysctls": {"net.x": "1 2"},
    }
