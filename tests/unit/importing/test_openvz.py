"""Claims about OpenVZ's configurations: every documented key is accounted for, and nothing in them is evaluated."""

from __future__ import annotations

import pytest

from reconciler.errors import ManifestError
from reconciler.importing.openvz import convert as openvz
from reconciler.importing.openvz.config import parse
from reconciler.importing.openvz.values import Pair, Unit, pair
from reconciler.importing.report import Entry, Ledger, Outcome, told_lines
from reconciler.importing.result import Import, Result
from reconciler.manifests.load import load_fleet
from reconciler.model.fleet import VeSpec
from reconciler.model.identity import VeName
from tests.support.importing import CASES, files_of, imported

DOCUMENTED = (CASES / "openvz-keys.txt").read_text().split()
"""Source: ctid.conf(5), vz.conf(5) and vzctl(8) of OpenVZ, and what Virtuozzo 7 writes beside."""

EVERY = dict(
    line.split("=", 1)
    for line in files_of(CASES / "openvz-every-key" / "in")["conf/401.conf"].decode().splitlines()
    if "=" in line
)


def of(text: str, *, name: str = "101.conf") -> Result:
    return imported("openvz", {name: text.encode()})


def spec(text: str) -> VeSpec:
    fleet = load_fleet(of(text).files, revision="").fleet
    assert fleet is not None
    (found,) = fleet.ves.values()
    return found


def entries(text: str, key: str) -> list[Entry]:
    return [entry for entry in of(text).ledger.entries if entry.setting.key == key]


@pytest.mark.parametrize("key", DOCUMENTED)
def test_every_documented_key_is_mapped_or_reported_with_its_line(key: str) -> None:
    value = EVERY.get(key, '"yes"')
    found = entries(f"# first\n{key}={value}\n", key)
    assert found
    assert all((entry.setting.file, entry.setting.line) == ("101.conf", 2) for entry in found)
    assert all(entry.path or entry.message for entry in found)
    assert not [entry for entry in found if entry.message == "no such key is known"]


def test_a_key_that_nobody_knows_is_reported() -> None:
    (entry,) = entries('MYSTERY="1"\n', "MYSTERY")
    assert (entry.outcome, entry.message) == (Outcome.DROPPED, "no such key is known")


def test_the_sample_of_every_key_has_every_documented_key_of_a_container() -> None:
    host = {"VIRTUOZZO", "LOCKDIR", "DUMPDIR", "VE0CPUUNITS", "LOGGING", "LOGFILE", "LOG_LEVEL", "VERBOSE"} | {
        "MODULES_DISABLED", "IPTABLES_MODULES", "VZFASTBOOT", "VE_STOP_MODE", "VE_PARALLEL", "SKIP_SYSCTL_SETUP",
        "VE_ROUTE_SRC_DEV", "NEIGHBOUR_DEVS", "ERROR_ON_ARPFAIL", "SKIP_ARPDETECT", "DEF_OSTEMPLATE", "CONFIGFILE",
    }  # fmt: skip
    assert set(DOCUMENTED) - host == set(EVERY) - {"IPV6"}


@pytest.mark.parametrize(
    "value",
    ["$(touch x)", "`touch x`", "$HOME", "${HOME}", "$((1+1))", "a$1", "$VEID$(x)"],
)
def test_what_a_shell_would_expand_is_refused_with_its_line(value: str) -> None:
    found = entries(f'CPUUNITS="1000"\nDESCRIPTION="{value}"\n', "DESCRIPTION")
    assert [(entry.outcome, entry.setting.line) for entry in found] == [(Outcome.DROPPED, 2)]
    assert "shell" in found[0].message


def test_single_quotes_and_backslashes_keep_a_dollar_as_it_is() -> None:
    assert spec("DESCRIPTION='costs $FIVE `now`'\n").description == "costs $FIVE `now`"
    assert spec('DESCRIPTION="costs \\$FIVE"\n').description == "costs $FIVE"


def settings(text: str) -> dict[str, str]:
    return {key: setting.value for key, setting in parse("f", text.encode(), Ledger(), veid="7").items()}


def test_lines_are_read_as_vzctl_reads_them() -> None:
    text = "\n".join(
        [
            "# comment",
            '  A="one"',
            "B=two  # not three",
            'C="with # inside" # outside',
            'D="a=b"',
            'E="quoted \\"twice\\""',
            "F=",
            'G="first\\',
            ' second"',
            'H="on',
            '  lines"',
            'I="open',
            'J="/vz/$VEID/${VEID}"',
            "export K=exported\r",
            'L="say "hi" now"',
        ]
    )
    assert settings(text) == {
        "A": "one",
        "B": "two",
        "C": "with # inside",
        "D": "a=b",
        "E": 'quoted "twice"',
        "F": "",
        "G": "first second",
        "H": "on lines",
        "J": "/vz/7/7",
        "K": "exported",
        "L": 'say "hi" now',
    }


def test_the_first_of_two_lines_with_a_key_counts() -> None:
    text = 'NUMPROC="100"\nNUMPROC="200"\n'
    assert spec(text).compute.processes == 100
    assert [entry.setting.line for entry in entries(text, "NUMPROC") if entry.outcome is Outcome.DROPPED] == [2]


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("10:20", Unit.ITEMS, Pair(barrier=10, limit=20)),
        ("10", Unit.ITEMS, Pair(barrier=10, limit=10)),
        ("0:256M", Unit.PAGES, Pair(barrier=0, limit=256 << 20)),
        ("1:2", Unit.PAGES, Pair(barrier=4096, limit=8192)),
        ("5000b:2p", Unit.PAGES, Pair(barrier=4096, limit=8192)),
        ("2G:2.2G", Unit.KIB, Pair(barrier=2 << 30, limit=2306867 << 10)),
        ("100:200", Unit.KIB, Pair(barrier=100 << 10, limit=200 << 10)),
        ("0:unlimited", Unit.PAGES, Pair(barrier=0, limit=None)),
        ("0:9223372036854775807", Unit.PAGES, Pair(barrier=0, limit=None)),
        ("0:2147483647", Unit.PAGES, Pair(barrier=0, limit=None)),
        ("1t", Unit.BYTES, Pair(barrier=1 << 40, limit=1 << 40)),
        ("99999999999999999999:1", Unit.BYTES, Pair(barrier=None, limit=1)),
    ],
)
def test_pairs_have_the_units_of_their_counters(text: str, unit: Unit, expected: Pair) -> None:
    assert pair(text, unit) == expected


@pytest.mark.parametrize("text", ["", "x", "1.5", "-1", "1:2:3", "1 2", "0x10", "1e9", "\u0661"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        pair(text, Unit.BYTES)


def test_a_count_has_no_suffix() -> None:
    with pytest.raises(ValueError, match="without a suffix"):
        pair("1K", Unit.ITEMS)


def test_vswap_limits_memory_by_physical_pages_whatever_the_barrier() -> None:
    for barrier in ("0", "65536"):
        found = spec(f'PHYSPAGES="{barrier}:65536"\nSWAPPAGES="0:1024"\nPRIVVMPAGES="10:20"\n').compute
        assert (found.memory_limit, found.swap) == (256 << 20, 4 << 20)


def test_slm_limits_memory_unless_its_mode_is_ubc() -> None:
    text = 'PHYSPAGES="0:unlimited"\nSLMMEMORYLIMIT="1G:2G"\nPRIVVMPAGES="65536:65536"\n'
    assert spec(text).compute.memory_limit == 2 << 30
    assert spec(f'SLMMODE="ubc"\n{text}').compute.memory_limit == 256 << 20


def test_beancounters_alone_limit_memory_by_what_may_be_asked_for() -> None:
    found = spec('PRIVVMPAGES="65536:69632"\nVMGUARPAGES="33792:unlimited"\nNUMPROC="240:260"\n').compute
    assert (found.memory_limit, found.memory_guarantee, found.processes) == (69632 * 4096, 33792 * 4096, 260)


def test_the_least_of_percentage_and_number_limits_the_cpu() -> None:
    for percent, number, expected in (("150", "2", 150_000), ("400", "2", 200_000), ("0", "3", 300_000)):
        assert spec(f'CPULIMIT="{percent}"\nCPUS="{number}"\n').compute.cpu_limit_us == expected
    assert spec('CPULIMIT="0"\n').compute.cpu_limit_us is None


def test_a_higher_boot_order_starts_earlier_and_none_at_all_last() -> None:
    first, second, last = (spec(text).power.order for text in ('BOOTORDER="20"\n', 'BOOTORDER="3"\n', "\n"))
    assert first < second < last


def test_the_global_configuration_counts_below_that_of_a_container() -> None:
    files = {"vz.conf": b'STOP_TIMEOUT="77"\nCPUUNITS="5000"\n', "1.conf": b'CPUUNITS="1000"\n', "2.conf": b""}
    fleet = load_fleet(imported("openvz", files).files, revision="").fleet
    assert fleet is not None
    assert {name: (ve.compute.cpu_weight, ve.power.stop_timeout_s) for name, ve in fleet.ves.items()} == {
        VeName("ct1"): (100, 77.0),
        VeName("ct2"): (500, 77.0),
    }


def test_two_containers_that_claim_one_name_both_get_one() -> None:
    files = {f"{number}.conf": b'HOSTNAME="www.example.org"\n' for number in (101, 102)}
    assert sorted(imported("openvz", files).files) == ["ves/www-102.yaml", "ves/www.yaml"]


def test_no_value_of_an_environment_is_repeated() -> None:
    result = of('VE_ENVIRONMENT="PASSWORD=hunter2"\n')
    assert "hunter2" not in str(result.to_json())
    assert "hunter2" not in "".join(data.decode() for data in result.files.values())


def test_what_is_not_valid_is_taken_out_and_told() -> None:
    result = of('HOSTNAME="under_score"\nBINDMOUNT="/a:/proc/x /b:/c"\nIP_ADDRESS="127.0.0.1 192.0.2.1"\n')
    assert load_fleet(result.files, revision="").findings == ()
    told = [(entry.setting.key, entry.message) for entry in result.ledger.entries if "not valid" in entry.message]
    assert [key for key, _ in sorted(told)] == ["BINDMOUNT", "HOSTNAME", "IP_ADDRESS"]
    assert b"192.0.2.1/32" in result.files["ves/under-score.yaml"]


def test_what_is_declared_already_is_left_as_it_is() -> None:
    network = b"{apiVersion: ve/v1, kind: Network, metadata: {name: venet}, spec: {mode: routed, mtu: 1400}}"
    files = {"1.conf": b'IP_ADDRESS="192.0.2.1"\n'}
    result = imported("openvz", files, beside={"mine.yaml": network})
    assert list(result.files) == ["ves/ct1.yaml"]
    assert not result.ledger.has_failed
    ve = b"{apiVersion: ve/v1, kind: VirtualEnvironment, metadata: {name: ct1}}"
    again = imported("openvz", files, beside={"mine.yaml": ve})
    assert list(again.files) == ["networks/venet.yaml"]
    assert again.ledger.has_failed


def test_on_a_fleet_of_several_hosts_each_names_its_own() -> None:
    hosts = b"".join(b"---\n{apiVersion: ve/v1, kind: Host, metadata: {name: %s}}\n" % name for name in (b"a", b"b"))
    run = Import(system="openvz")
    openvz.convert(openvz.Given(files={"1.conf": b""}), run)
    with pytest.raises(ManifestError, match="expected --host, one of a, b"):
        run.finish({"hosts.yaml": hosts})
    run.host = "b"
    assert b"host: b\n" in run.finish({"hosts.yaml": hosts}).files["ves/ct1.yaml"]


def test_a_directory_that_is_not_valid_is_not_added_to() -> None:
    with pytest.raises(ManifestError, match=r"mine\.yaml:1: it is not valid"):
        imported("openvz", {"1.conf": b""}, beside={"mine.yaml": b"kind: Nothing\n"})


def test_what_many_containers_have_in_common_is_told_once() -> None:
    files = {f"{number}.conf": b'QUOTAUGIDLIMIT="100"\n' for number in range(101, 121)}
    entries = imported("openvz", files).ledger.ordered()
    told = [line for line in told_lines(entries) if "QUOTAUGIDLIMIT" in line]
    assert len(told) == 1
    assert told[0].startswith("dropped: 101.conf:1 and 19 more: QUOTAUGIDLIMIT=100: ")
