"""What tells how VEs, hosts and their resources stand prints."""

from __future__ import annotations

from reconciler.manifests.outputs import parts
from reconciler.manifests.outputs.parts import Schema
from reconciler.model.capacity import Resource as Supply
from reconciler.model.condition import ConditionType, Status
from reconciler.model.counters import Enforcement, Resource
from reconciler.model.power import Power
from reconciler.model.quota import QuotaKind


def condition() -> Schema:
    """Describe a condition."""
    fields = {
        "type": parts.word((kind.value for kind in ConditionType), "What is told."),
        "status": parts.word((status.value for status in Status), "Whether it holds."),
        "reason": parts.text("Why, one word."),
        "message": parts.text("Why, a sentence."),
        "revision": parts.text("Revision of the manifests that it was judged by."),
        "since": parts.number("When it last changed, in seconds since the epoch.", kind="number"),
    }
    return parts.record(fields, "A condition.")


def _runtime() -> Schema:
    fields = {
        "pid": parts.number("Process id of init.", or_null=True),
        "cgroup": parts.text_or_null("Path of the cgroup that holds the limits."),
        "netns": parts.text_or_null("Path of the network namespace."),
        "rootfs": parts.text_or_null("Path of the root file system, as the host can reach it."),
        "idBase": parts.number("First user and group id of its range on the host.", or_null=True),
    }
    return parts.record(fields, "Where the VE is on the host; null for what there is not.")


def get() -> Schema:
    """Describe `vectl get -o json`."""
    item: dict[str, Schema] = {
        "name": parts.text("Name."),
        "uid": parts.text_or_null("Identity; null before it is created."),
        "host": parts.text_or_null("Host."),
        "power": parts.word((*(power.value for power in Power), "created", "unknown"), "Whether it runs."),
        "conditions": parts.array(condition(), "Conditions; Ready is always among them."),
        "desired": parts.anything(
            "What the manifests ask for, with the fields of spec in canonical form; null without one."
        ),
        "observed": parts.anything("What the host was seen to hold, with the same fields."),
        "runtime": _runtime(),
        "unknown": parts.array(parts.text("A path."), "Facts that could not be read."),
    }
    fields: dict[str, Schema] = {
        "format": parts.format_number(),
        "host": parts.text("Host that was asked."),
        "maintenance": {"type": "boolean", "description": "Whether the host takes no new VE."},
        "revision": parts.text("Revision of the manifests in force."),
        "items": parts.array(parts.record(item, "A VE."), "VEs."),
    }
    return parts.record(fields, "What `vectl get -o json` prints.", optional=("maintenance",))


def beancounters() -> Schema:
    """Describe `vectl beancounters -o json`."""
    row: dict[str, Schema] = {
        "resource": parts.word((resource.value for resource in Resource), "Resource, by OpenVZ's name."),
        "unit": parts.word(("bytes", "items"), "What it is counted in; also bytes where OpenVZ counts pages."),
        "held": parts.number("What is in use now; null where this host does not count it.", or_null=True),
        "maxheld": parts.number("The most that was in use, over restarts."),
        "barrier": parts.number("Barrier; null for none.", or_null=True),
        "limit": parts.number("Limit; null for unlimited.", or_null=True),
        "failcnt": parts.number("How often a bound was met, over restarts; never falls."),
        "enforcement": parts.word((word.value for word in Enforcement), "Whether the kernel holds the limit."),
        "by": parts.text("What holds it; empty where it is only observed."),
    }
    item: dict[str, Schema] = {
        "name": parts.text("Name."),
        "uid": parts.text("Identity."),
        "counters": parts.array(parts.record(row, "A resource."), "Resources, in OpenVZ's order."),
    }
    fields = {
        "format": parts.format_number(),
        "host": parts.text("Host that was asked."),
        "items": parts.array(parts.record(item, "A VE."), "VEs."),
    }
    return parts.record(fields, "What `vectl beancounters -o json` prints.")


def quota() -> Schema:
    """Describe `vectl quota -o json`."""
    item: dict[str, Schema] = {
        "kind": parts.word((kind.value for kind in QuotaKind), "Whose quota."),
        "id": parts.number("Number of the user or group inside the VE."),
        "used": parts.number("Bytes that its files take."),
        "soft": parts.number("Bytes that may be exceeded for the time of grace; null for unlimited.", or_null=True),
        "hard": parts.number("Bytes that are never exceeded; null for unlimited.", or_null=True),
        "graceEnds": parts.number("When grace ends, seconds since the epoch; null while soft holds.", or_null=True),
        "files": parts.number("Number of its files."),
        "softFiles": parts.number(
            "Files that may be exceeded for the time of grace; null for unlimited.", or_null=True
        ),
        "hardFiles": parts.number("Files that are never exceeded; null for unlimited.", or_null=True),
        "graceEndsFiles": parts.number(
            "When grace ends, seconds since the epoch; null while soft holds.", or_null=True
        ),
    }
    disk: dict[str, Schema] = {
        "used": parts.number("Bytes that all files take.", or_null=True),
        "size": parts.number("Size of the VE's own file system, in bytes.", or_null=True),
        "files": parts.number("Number of all files.", or_null=True),
        "inodes": parts.number("How many files there may be; null for as many as fit.", or_null=True),
    }
    fields: dict[str, Schema] = {
        "format": parts.format_number(),
        "name": parts.text("Name."),
        "uid": parts.text("Identity."),
        "disk": parts.record(disk, "The whole of it."),
        "items": parts.array(parts.record(item, "A user or group."), "Users, then groups, that have files or limits."),
    }
    return parts.record(fields, "What `vectl quota -o json` prints.")


def balance_fields() -> dict[str, Schema]:
    """Describe the fields of what there is of a resource."""
    sizes = {
        "capacity": "What there is to promise from; null where nobody said.",
        "reserve": "What of it the host keeps.",
        "guaranteed": "Guarantees of its VEs together.",
        "guaranteed_free": "What more may be guaranteed; null where the capacity is not known.",
        "limits": "Limits of its VEs together; null for unlimited.",
        "limits_free": "What more may be allowed; null for any amount.",
        "used": "What VEs use of it now, of the disk whoever uses it; null where nobody knows.",
    }
    return {
        "resource": parts.word((resource.value for resource in Supply), "The resource."),
        "overcommit": parts.number(
            "How many times what is not reserved may be promised as limits; null for any.", kind="number", or_null=True
        ),
        **{name: parts.number(f"{what} Bytes, or CPUs.", kind="number", or_null=True) for name, what in sizes.items()},
    }


def capacity() -> Schema:
    """Describe `vectl capacity -o json`."""
    host: dict[str, Schema] = {
        "host": parts.text("Name."),
        "ves": parts.number("Number of VEs that are counted."),
        "resources": parts.array(parts.record(balance_fields(), "A resource."), "Resources."),
        "warnings": parts.array(parts.text("A sentence."), "What its administrator should know."),
    }
    return parts.record(
        {"format": parts.format_number(), "hosts": parts.array(parts.record(host, "A host."), "Hosts.")},
        "What `vectl capacity -o json` prints.",
    )
