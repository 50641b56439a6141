"""Canonical values as people write them in a manifest: the way back from `canonical`, led by the schema.

What is at its default is left out. A field that a facet adds is written by its type, without a line here.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict

from reconciler.manifests import schema
from reconciler.manifests.canonical import RLIMIT_UNLIMITED
from reconciler.model.compute import CPU_PERIOD_US
from reconciler.model.facts import Json
from reconciler.model.network import NetworkSpec
from reconciler.model.units import format_number_set
from reconciler.model.volume import BuiltinSource, ImageSource, TemplateSpec

_API = "ve/v1"
_UNLIMITED = "unlimited"
_SIZES = (("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10))
_DURATIONS = (("w", 604800), ("d", 86400), ("h", 3600), ("m", 60))
_RATES = (("Tbit", 10**12), ("Gbit", 10**9), ("Mbit", 10**6), ("Kbit", 10**3))
_KEYS: Mapping[str, str] = {"mounts": "target", "users": "id", "groups": "id", "snapshots": "name", "devices": "path"}
"""What tells the entries of a list apart whose canonical form is a map."""


def ve_document(name: str, uid: str, values: Mapping[str, Json], interfaces: Iterable[Json]) -> dict[str, Json]:
    """Give a VE's manifest. ``values``: canonical, nested like ``spec``, without the interfaces, which are written."""
    root = schema.json_schemas()["VirtualEnvironment"]
    metadata: dict[str, Json] = {"name": name, "uid": uid}
    labels = values.get("labels")
    if labels:
        metadata["labels"] = labels
    body = _section(_definition(root, "VeBody"), root, {key: v for key, v in values.items() if key != "labels"})
    links = [*interfaces]
    if links:
        body["interfaces"] = links
    return {"apiVersion": _API, "kind": "VirtualEnvironment", "metadata": metadata, "spec": body}


def interface(name: str, values: Mapping[str, Json], *, mtu: int | None, gateways: Iterable[str] | None) -> Json:
    """Give a VE's interface. ``mtu``: of its network. ``gateways``: the default gateways, None for the network's."""
    written: dict[str, Json] = {"name": name, "network": values["network"]}
    if values.get("addresses"):
        written["addresses"] = values["addresses"]
    if values.get("mac") not in (None, "auto"):
        written["mac"] = values["mac"]
    if values.get("mtu") not in (None, mtu):
        written["mtu"] = values["mtu"]
    if gateways is not None:
        written["gateway"] = [*gateways]
    routes = values.get("routes")
    others = [_route(route) for route in routes if isinstance(route, dict)] if isinstance(routes, list) else []
    if others:
        written["routes"] = [*others]
    return written


def _route(route: Mapping[str, Json]) -> Json:
    return {"to": route["to"], **({"via": route["via"]} if route.get("via") else {})}


def template_document(template: TemplateSpec) -> dict[str, Json]:
    """Give a template's manifest."""
    source = template.source
    kind = type(source).__name__.removesuffix("Source").lower()
    parts: dict[str, Json] = {
        key: [*value] if isinstance(value, tuple) else value for key, value in asdict(source).items() if value
    }
    parts = {key: value for key, value in parts.items() if (key, value) != ("setuid", "keep")}
    written: Json = parts
    if isinstance(source, BuiltinSource | ImageSource):
        (written,) = parts.values()
    body: dict[str, Json] = {"source": {kind: written}}
    if template.init != TemplateSpec(name=template.name, key=template.key, source=source).init:
        body["init"] = [*template.init]
    return {"apiVersion": _API, "kind": "Template", "metadata": {"name": template.name}, "spec": body}


def network_document(network: NetworkSpec, *, ves: Container[str]) -> dict[str, Json]:
    """Give a network's manifest, of its forwards only those to some VEs: the others' targets are not beside it."""
    body: dict[str, Json] = {"mode": network.mode.value}
    if network.subnets:
        body["subnets"] = [str(subnet) for subnet in network.subnets]
    if network.gateways:
        body["gateway"] = [*sorted(str(gateway.ip) for gateway in network.gateways)]
    forwards: list[Json] = [
        {"listen": forward.listen, "to": f"{forward.ve}:{forward.port}", "protocol": forward.protocol}
        for forward in network.forwards
        if forward.ve in ves
    ]
    if forwards:
        body["forwards"] = forwards
    flags: dict[str, Json] = {"nat": network.nat, "isolated": network.isolated, "uplink": network.uplink}
    body |= {key: value for key, value in flags.items() if value}
    if network.mtu != NetworkSpec(name=network.name).mtu:
        body["mtu"] = network.mtu
    if network.vxlan is not None:
        body["vxlan"] = {"id": network.vxlan.id, "port": network.vxlan.port}
    return {"apiVersion": _API, "kind": "Network", "metadata": {"name": network.name}, "spec": body}


def _section(node: Mapping[str, Json], root: Mapping[str, Json], values: Mapping[str, Json]) -> dict[str, Json]:
    properties = node.get("properties")
    assert isinstance(properties, dict)  # only sections get here
    written: dict[str, Json] = {}
    for key, field in properties.items():
        if key in values and isinstance(field, dict):
            value = _written(key, field, root, values[key])
            if value is not None and value != field.get("default") and value not in ({}, [], ""):
                written[key] = value
    return written


def _written(key: str, field: Mapping[str, Json], root: Mapping[str, Json], value: Json) -> Json:
    """Give a value as it is written; None, if that is done by leaving it out."""
    core, title = _core(field, root), _title(field)
    items = core.get("items")
    entry = _core(items, root) if isinstance(items, dict) else {}
    match value:
        case None:
            return _UNLIMITED if title.endswith(_UNLIMITED) else None
        case dict() if "properties" in core:
            return {**_section(core, root, value)}
        case dict() if "properties" in entry:
            known = [(name, one) for name, one in value.items() if isinstance(one, dict)]
            return [{**_own_key(key, name, one), **_section(entry, root, one)} for name, one in known]
        case list() if "properties" in entry:
            return [{**_section(entry, root, one)} for one in value if isinstance(one, dict)]
        case list() if title == "list of numbers":
            return format_number_set(frozenset(int(str(number)) for number in value)) or None
        case int() | float() if not isinstance(value, bool):
            return _number(title, value)
    return value


def _own_key(key: str, name: str, entry: Mapping[str, Json]) -> dict[str, Json]:
    """Give what an entry is told by: a device that is an interface by what is among its values anyway."""
    return {} if "nic" in entry else {_KEYS[key]: _key(name)}


def _key(name: str) -> Json:
    return int(name) if name.isdecimal() else name


def _number(title: str, value: int | float) -> Json:
    if value == RLIMIT_UNLIMITED:
        return _UNLIMITED
    if title.startswith("size"):
        return _in_units(value, _SIZES, "")
    if title == "duration":
        return _in_units(value, _DURATIONS, "s")
    if title.startswith("bit rate"):
        return _in_units(value, _RATES, "bit")
    if title.startswith("CPUs"):
        return _plain(value / CPU_PERIOD_US)
    return value


def _in_units(value: int | float, units: Iterable[tuple[str, int]], least: str) -> Json:
    """Give a quantity exactly, in the largest unit that keeps it whole."""
    for unit, factor in units:
        if value >= factor and value % factor == 0:
            return f"{value // factor:g}{unit}"
    return f"{_plain(value)}{least}" if least else value


def _plain(value: int | float) -> int | float:
    return int(value) if value == int(value) else value


def _definition(root: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    definitions = root.get("$defs")
    found = definitions.get(name) if isinstance(definitions, dict) else None
    assert isinstance(found, dict)  # the models' own name
    return found


def _title(field: Mapping[str, Json]) -> str:
    title, choices = field.get("title"), field.get("anyOf")
    if isinstance(title, str):
        return title
    found = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
    return next((title for choice in found if (title := _title(choice))), "")


def _core(field: Mapping[str, Json], root: Mapping[str, Json]) -> Mapping[str, Json]:
    """Look through a reference, and through the choice between a value and null."""
    reference, choices = field.get("$ref"), field.get("anyOf")
    if isinstance(reference, str):
        return _core(_definition(root, reference.rsplit("/", 1)[1]), root)
    if isinstance(choices, list):
        values = [choice for choice in choices if isinstance(choice, dict) and choice != {"type": "null"}]
        if len(values) == 1:
            return _core(values[0], root)
    return field
