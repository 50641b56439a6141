"""The configuration: what is not said has its default, what is wrong is told with its place, all of it at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.errors import ConfigError, UsageError
from reconciler.model.etcd import EtcdAddress
from reconciler.state.config import (
    Config,
    Overrides,
    load_config,
    parse_config,
)
from reconciler.state.location import DirectoryLocation, GitLocation
from reconciler.state.transport import Transport

NONE = Overrides()
EVERYTHING = b"""\
instance: lab
host: node-a
stateDir: /srv/lab
runDir: /run/lab-1
cgroup: /lab.slice/ves
pool: {size: 40Gi, path: /dev/vdb}
runtime: crun
source: {path: /srv/desired}
coordinator: local
transport: {listen: "192.0.2.11:7443", bandwidth: 100Mi, key: /etc/vectl/host.key}
listen: "[::1]:9118"
resync: 5m
relist: 2s
settle: 0s
pruneDelay: 1m
trashDays: 0
maxRestarts: 3
workers: 8
policy: /etc/vectl/lab.yaml
"""


def _parse(text: str | bytes, overrides: Overrides = NONE) -> Config:
    data = text.encode() if isinstance(text, str) else text
    return parse_config(data, file="c.yaml", overrides=overrides)


def test_without_a_file_everything_has_its_default() -> None:
    config = _parse("", Overrides(host="node-a"))
    instance = config.instance
    assert (instance.name, instance.state_dir, instance.run_dir) == ("vectl", "/var/lib/vectl", "/run/vectl")
    assert (instance.cgroup, instance.runtime, instance.pool_path) == ("/vectl", "runc", None)
    assert (config.source, config.etcd, config.listen) == (None, None, None)
    assert (config.settle_s, config.prune_delay_s, config.trash_days, config.workers) == (0.3, 30.0, 7, 4)
    assert config.policy == "/etc/vectl/policy.yaml"


def test_every_setting_is_taken() -> None:
    config = _parse(EVERYTHING)
    instance = config.instance
    assert (instance.name, instance.host, instance.state_dir) == ("lab", "node-a", "/srv/lab")
    assert (instance.run_dir, instance.cgroup) == ("/run/lab-1", "/lab.slice/ves")
    assert (instance.pool_size, instance.pool_path, instance.runtime) == (40 << 30, "/dev/vdb", "crun")
    assert config.source == DirectoryLocation(path="/srv/desired")
    assert (config.resync_s, config.relist_s, config.settle_s, config.prune_delay_s) == (300.0, 2.0, 0.0, 60.0)
    assert (config.trash_days, config.max_restarts, config.workers) == (0, 3, 8)
    assert (config.listen, config.policy) == ("[::1]:9118", "/etc/vectl/lab.yaml")
    assert config.transport == Transport(listen="192.0.2.11:7443", bandwidth=100 << 20, key="/etc/vectl/host.key")


def test_places_follow_the_name_of_the_instance() -> None:
    instance = _parse("instance: lab\nhost: a\n").instance
    assert (instance.state_dir, instance.run_dir, instance.cgroup) == ("/var/lib/lab", "/run/lab", "/lab")


def test_the_host_is_named_after_the_machine_unless_it_is_said() -> None:
    assert _parse("").instance.host == os.uname().nodename.split(".")[0].lower()
    assert _parse("host: node-b\n").instance.host == "node-b"
    assert _parse("host: node-b\n", Overrides(host="node-c")).instance.host == "node-c"


def test_null_and_nothing_mean_not_set() -> None:
    assert _parse("instance:\nhost: ~\nlisten: null\nsource:\n") == _parse("")


def test_git_and_etcd_are_taken() -> None:
    config = _parse(
        "source: {git: {url: 'ssh://git@example.org/fleet', branch: prod, subdir: eu/lab, trust: /etc/vectl/signers}}\n"
        "coordinator: {etcd: {endpoints: ['https://10.0.0.1:2379', 'https://10.0.0.2:2379'], ca: /etc/ca.pem}}\n"
    )
    assert config.source == GitLocation(
        urls=("ssh://git@example.org/fleet",), ref="refs/heads/prod", subdir="eu/lab", trust="/etc/vectl/signers"
    )
    assert config.etcd == EtcdAddress(endpoints=("https://10.0.0.1:2379", "https://10.0.0.2:2379"), ca="/etc/ca.pem")


def test_everything_about_etcd_is_taken() -> None:
    config = _parse(
        "coordinator: {etcd: {endpoints: ['https://etcd-1.example.org', 'http://127.0.0.1:2379/'], ca: /e/ca.pem,\n"
        "  cert: /e/host.pem, key: /e/host.key, username: node-a, passwordFile: /e/password, fleet: lab}}\n"
    )
    assert config.etcd == EtcdAddress(
        endpoints=("https://etcd-1.example.org", "http://127.0.0.1:2379"),
        ca="/e/ca.pem",
        cert="/e/host.pem",
        key="/e/host.key",
        username="node-a",
        password_file="/e/password",
        fleet="lab",
    )


@pytest.mark.parametrize(
    ("inner", "told"),
    [
        pytest.param("endpoints: []", "etcd.endpoints: expected one address or more, each once", id="none"),
        pytest.param("endpoints: ['http://[::1]', 'http://[::1]/']", "expected one address or more", id="twice"),
        pytest.param("endpoints: ['http://10.0.0.1:2379']", "endpoints.0: expected https://NAME:PORT", id="no-tls"),
        pytest.param("endpoints: ['https://a:99999']", "endpoints.0: expected https://NAME:PORT", id="port"),
        pytest.param("endpoints: ['https://a/v3']", "endpoints.0: expected https://NAME:PORT", id="path"),
        pytest.param("endpoints: ['10.0.0.1:2379']", "endpoints.0: expected https://NAME:PORT", id="no-scheme"),
        pytest.param("endpoints: ['https://a'], cert: /c", "etcd.key: has to be set", id="cert-without-key"),
        pytest.param("endpoints: ['https://a'], key: /c", "etcd.cert: has to be set", id="key-without-cert"),
        pytest.param("endpoints: ['https://a'], username: a", "passwordFile: has to be set", id="no-password"),
        pytest.param("endpoints: ['https://a'], passwordFile: /p", "username: has to be set", id="no-user"),
        pytest.param("endpoints: ['https://a'], ca: ca.pem", "etcd.ca: expected an absolute path", id="relative"),
        pytest.param("endpoints: ['https://a'], fleet: a/b", "etcd.fleet: expected a name", id="fleet"),
        pytest.param("endpoint: ['https://a']", "etcd.endpoint: no such setting; did you mean 'endpoints'", id="typo"),
    ],
)
def test_what_is_wrong_about_etcd_is_told(inner: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _parse(f"coordinator:\n  etcd: {{{inner}}}\n")
    assert told in str(caught.value)
    assert str(caught.value).startswith("read c.yaml:2:")


def test_a_password_in_an_endpoint_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        _parse("coordinator: {etcd: {endpoints: ['https://root:hunter2@a:2379']}}\n")
    assert "hunter2" not in str(caught.value)
    assert "'passwordFile'" in str(caught.value)


def test_the_key_of_the_host_lies_with_its_state_unless_it_is_said() -> None:
    config = _parse("stateDir: /srv/lab\n")
    assert config.transport.key_file(config.instance) == "/srv/lab/host.key"
    config = _parse("transport: {key: /k}\n")
    assert config.transport.key_file(config.instance) == "/k"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{listen: 'node-a:7443'}", "expected an IP address and a port such as 192.0.2.11:7443"),
        ("{listen: '192.0.2.11'}", "expected an IP address and a port such as 192.0.2.11:7443"),
        ("{bandwidth: 1Ki}", "expected 64Ki a second or more"),
        ("{bandwidth: fast}", "expected a size"),
        ("{key: host.key}", "expected an absolute path"),
        ("{port: 7443}", "no such setting"),
    ],
)
def test_what_is_no_transport_is_told(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _parse(f"transport: {text}\n")
    assert "c.yaml:1:" in str(caught.value)
    assert told in str(caught.value)


def test_the_command_line_is_over_the_file() -> None:
    overrides = Overrides(state_dir="/s", run_dir="/r", host="other", source="/d")
    config = _parse(EVERYTHING, overrides)
    assert (config.instance.state_dir, config.instance.run_dir, config.instance.host) == ("/s", "/r", "other")
    assert config.source == DirectoryLocation(path="/d")
    assert config.instance.cgroup == "/lab.slice/ves"


def test_paths_of_the_command_line_start_where_the_user_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = _parse("", Overrides(source="desired/", state_dir="../state"))
    assert config.source == DirectoryLocation(path=str(tmp_path / "desired"))
    assert config.instance.state_dir == str(tmp_path.parent / "state")


def test_another_instance_shares_no_place_with_that_of_the_file() -> None:
    text = EVERYTHING.replace(b"coordinator: local", b"coordinator: {etcd: {endpoints: ['https://a']}}")
    ours, other = _parse(text), _parse(text, Overrides(instance="other"))
    assert (other.instance.state_dir, other.instance.run_dir) == ("/var/lib/other", "/run/other")
    assert (other.instance.cgroup, other.instance.pool_path) == ("/other", None)
    assert (other.source, other.listen, other.etcd, other.transport) == (None, None, None, Transport())
    assert (other.instance.host, other.instance.runtime) == (ours.instance.host, "crun")


def test_naming_the_instance_of_the_file_changes_nothing() -> None:
    assert _parse(EVERYTHING, Overrides(instance="lab")) == _parse(EVERYTHING)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("poool: {}\n", "c.yaml:1:1: poool: no such setting; did you mean 'pool'?", id="close"),
        pytest.param(
            "host: a\nstate_dir: /x\n", "c.yaml:2:1: state_dir: no such setting; did you mean 'st", id="snake"
        ),
        pytest.param("pool:\n  sise: 1Gi\n", "c.yaml:2:3: pool.sise: no such setting; did you mean 'size'", id="inner"),
        pytest.param("zzz: 1\n", "known here: cgroup,", id="far"),
        pytest.param("instance: Lab\n", "instance: expected 1 to 12 of a-z", id="upper-case"),
        pytest.param("instance: thirteen-long\n", "expected 1 to 12 of a-z", id="too-long"),
        pytest.param("instance: 1lab\n", "a letter first", id="digit-first"),
        pytest.param("host: node_a\n", "host: expected a label", id="host"),
        pytest.param("stateDir: lib\n", "stateDir: expected an absolute path", id="relative"),
        pytest.param("stateDir: /var/../etc\n", "stateDir: expected an absolute path", id="dots"),
        pytest.param("runDir: /run/x/\n", "runDir: expected an absolute path", id="slash-at-end"),
        pytest.param("cgroup: /\n", "cgroup: expected an absolute path", id="root"),
        pytest.param("pool: {size: 40 Gi}\n", "pool.size: expected a size", id="size"),
        pytest.param("pool: {size: 0}\n", "pool.size: expected 256Mi or more", id="no-size"),
        pytest.param("pool: /dev/vdb\n", "pool: expected keys with values", id="scalar-for-mapping"),
        pytest.param("runtime: docker\n", "runtime: expected runc or crun, got 'docker'", id="runtime"),
        pytest.param("resync: 60\n", "resync: expected a duration", id="no-unit"),
        pytest.param("resync: 0s\n", "resync: expected a duration from 1s to 1d", id="busy-loop"),
        pytest.param("workers: 0\n", "workers: expected a number from 1 to 64", id="zero"),
        pytest.param("workers: [4]\n", "workers: expected a single value", id="list-for-scalar"),
        pytest.param("trashDays: -1\n", "trashDays: expected a number", id="negative"),
        pytest.param("listen: 9118\n", "listen: expected an address and a port", id="port-only"),
        pytest.param("listen: a:99999\n", "listen: expected an address and a port", id="port"),
        pytest.param("coordinator: zookeeper\n", "coordinator: expected local, or etcd", id="coordinator"),
        pytest.param("coordinator: {etcd: {}}\n", "coordinator.etcd.endpoints: has to be set", id="no-endpoints"),
        pytest.param("coordinator: {etcd: {endpoints: a}}\n", "endpoints: expected a list", id="scalar-for-list"),
        pytest.param("coordinator: {etcd: {endpoints: [{}]}}\n", "endpoints.0: expected a single", id="list-item"),
        pytest.param("source: {}\n", "source.path: has to be set", id="empty-source"),
        pytest.param("source: {path: /a, git: {url: u}}\n", "got both", id="two-sources"),
        pytest.param("source: {git: {branch: b}}\n", "source.git.url: has to be set", id="no-url"),
        pytest.param("source: {git: {url: u, subdir: ../x}}\n", "source.git.subdir: expected a path below", id="above"),
        pytest.param("- a\n", "c.yaml:1:1: expected keys with values", id="list"),
        pytest.param("host: a\nhost: b\n", "c.yaml:2:1: 'host' is set twice", id="twice"),
        pytest.param("host: &x a\nlisten: *x\n", "c.yaml:1:7: expected plain YAML", id="anchor"),
        pytest.param("host: !secret a\n", "c.yaml:1:7: expected plain YAML", id="tag"),
        pytest.param("? [a]\n: b\n", "expected a name as key", id="complex-key"),
        pytest.param("host: a\n---\nhost: b\n", "c.yaml:2:1: but found another document", id="two-documents"),
        pytest.param("pool: {size: 1Gi\n", "c.yaml:2:1:", id="unclosed"),
        pytest.param(b"host: \xff\n", "expected YAML in UTF-8", id="bytes"),
        pytest.param("[" * 5000, "c.yaml", id="deep"),
        pytest.param("#" * 70_000, "expected 65536 bytes at most", id="large"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str | bytes, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _parse(text)
    assert told in str(caught.value)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    with pytest.raises(ConfigError) as caught:
        _parse("workers: many\npool: {size: big, path: x}\nhots: a\n")
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "read c.yaml:1:1",
        "read c.yaml:2:8",
        "read c.yaml:2:19",
        "read c.yaml:3:1",
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(Overrides(instance="Not Good"), id="instance"),
        pytest.param(Overrides(host="a.b"), id="host"),
        pytest.param(Overrides(state_dir="/"), id="state-dir"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_of_usage(overrides: Overrides) -> None:
    with pytest.raises(UsageError, match=r"^read --"):
        _parse("", overrides)


def test_a_named_file_has_to_be_there(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.yaml")
    for path, environment in ((missing, {}), (None, {"VECTL_CONFIG": missing})):
        with pytest.raises(ConfigError, match="found none"):
            load_config(path, NONE, environment=environment)


def test_the_option_is_over_the_environment(tmp_path: Path) -> None:
    named, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    named.write_text("instance: named\n")
    other.write_text("instance: other\n")
    environment = {"VECTL_CONFIG": str(other), "VECTL_LIB": "/opt/vectl"}
    config = load_config(str(named), NONE, environment=environment)
    assert (config.instance.name, config.file, config.instance.lib_dir) == ("named", str(named), "/opt/vectl")
    config = load_config(None, NONE, environment={"VECTL_CONFIG": str(other)})
    assert (config.instance.name, config.instance.lib_dir) == ("other", "/usr/lib/vectl")


def test_a_relative_lib_directory_is_refused() -> None:
    with pytest.raises(ConfigError, match="VECTL_LIB: expected an absolute path"):
        load_config("/dev/null", NONE, environment={"VECTL_LIB": "lib"})
