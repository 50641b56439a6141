"""JSON Schema of what the commands print for scripts. Written by hand: these are promises, not consequences of code.

Fields may be added under the same ``format``; what is here stays, or the number goes up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from reconciler.model import capacity
from reconciler.model.action import Basis, Impact, Operation, Origin, Reason, Reversible
from reconciler.model.condition import ConditionType, Status
from reconciler.model.counters import Enforcement, Resource
from reconciler.model.facts import Json
from reconciler.model.power import Power
from reconciler.model.quota import QuotaKind

Schema: TypeAlias = "dict[str, Json]"

FORMAT = 1
"""Number of the outputs' present format."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schemas() -> dict[str, Schema]:
    """Give the schema of each command's ``-o json``, by command."""
    bodies = {"plan": _plan(), "get": _get(), "validate": _validate(), "apply": _apply()}
    bodies["beancounters"] = _beancounters()
    bodies["capacity"] = _capacity()
    bodies["quota"] = _quota()
    bodies["audit"] = _audit()
    bodies["source-check"] = _source_check()
    bodies["source-status"] = _source_status()
    bodies["source-verify"] = _source_verify()
    bodies["import"] = _import()
    bodies["plan-between"] = _plan_between()
    bodies["notification"] = _notification()
    return {
        name: {"$schema": _DIALECT, "$id": f"urn:vectl:output:v{FORMAT}:{name}", **body}
        for name, body in bodies.items()
    }


def _map(fields: Mapping[str, Schema], description: str, *, optional: Iterable[str] = ()) -> Schema:
    return {
        "type": "object",
        "description": description,
        "properties": dict(fields),
        "required": [name for name in fields if name not in set(optional)],
    }


def _list(items: Schema, description: str) -> Schema:
    return {"type": "array", "description": description, "items": items}


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _word(words: Iterable[str], description: str) -> Schema:
    return {"enum": list(words), "description": description}


def _number(description: str, *, kind: str = "integer", or_null: bool = False) -> Schema:
    return {"type": [kind, "null"] if or_null else kind, "description": description}


def _text_or_null(description: str) -> Schema:
    return {"type": ["string", "null"], "description": description}


def _any(description: str) -> Schema:
    return {"description": description}


def _format() -> Schema:
    return {"const": FORMAT, "description": "Number of this format; goes up when something here changes or goes."}


def _action_fields() -> dict[str, Schema]:
    return {
        "ve": _text(
            "Name of the VE, or `network/NAME`, `host/filter`, `host/cgroup`, `template/NAME@DIGEST` of the host."
        ),
        "op": _word((op.value for op in Operation), "What happens to the object."),
        "path": _text("Path of the field; empty for the object as a whole."),
        "before": _any("Observed value, in canonical form; null for none or unlimited."),
        "after": _any("Desired value, in canonical form; null for none or unlimited."),
        "reason": _word((reason.value for reason in Reason), "Why it is in the plan."),
        "impact": _word((impact.word for impact in Impact), "What it does to the VE, from harmless to worst."),
        "downtime": _map(
            {
                "seconds": _number("Seconds; null where nobody knows.", kind="number", or_null=True),
                "basis": _word((basis.value for basis in Basis), "Where the number comes from."),
            },
            "For how long the VE is away.",
        ),
        "reversible": _word((word.value for word in Reversible), "Whether reverting the manifests brings it back."),
        "origin": _word((origin.value for origin in Origin), "Who wants it."),
    }


def _refusal() -> Schema:
    fields = {
        "ve": _text("Name of the VE."),
        "rule": _text("The rule, one word."),
        "message": _text("What will not be done, and why."),
        "remedy": _text("How to allow it."),
    }
    return _map(fields, "Something that will not be done.")


def _plan() -> Schema:
    names = [*(op.value for op in Operation), "drift"]
    summary = {name: _number(f"Number of VEs of which something is of this kind: {name}.") for name in names}
    fields = {
        "format": _format(),
        "host": _text("Host that the plan is for."),
        "revision": _text("Revision of the manifests."),
        "action_hash": _text("Names the actions that come from the manifests; what a consent is bound to."),
        "summary": _map(summary, "The plan in numbers."),
        "actions": _list(_map(_action_fields(), "One step."), "Steps, in their order."),
        "refused": _list(_refusal(), "What will not be done."),
        "unknown": _list(_text("A path."), "Facts that could not be read; what depends on them is not changed."),
    }
    return _map(fields, "What `vectl plan -o json` prints.")


def _plan_between() -> Schema:
    balances = _list(_map(_balance_fields(), "A resource."), "Resources.")
    capacity_of: dict[str, Schema] = {
        "host": _text("Name."),
        "ves": _number("Number of VEs that the later revision puts on it."),
        "before": balances,
        "after": balances,
    }
    fields: dict[str, Schema] = {
        "format": _format(),
        "from": _text("Commit of --from."),
        "to": _text("Commit of --to."),
        "base": _text("Commit that --to is compared with: where the ways of both part, or the last valid one before."),
        "notes": _list(_text("A sentence."), "What else a reviewer should know."),
        "hosts": _list(_plan(), "The plan of each host: against what was seen of it, else against the base."),
        "action_hashes": {
            "type": "object",
            "description": "By host, the hash of what lies between the revisions: what a host compares a review with.",
        },
        "capacity": _list(_map(capacity_of, "A host."), "What is promised of each host."),
        "observed": {
            "type": "object",
            "description": "By host that somebody looked at, when: seconds since the epoch; null where it is not told.",
        },
    }
    return _map(fields, "What `vectl plan --from A --to B -o json` prints.")


def _condition() -> Schema:
    fields = {
        "type": _word((kind.value for kind in ConditionType), "What is told."),
        "status": _word((status.value for status in Status), "Whether it holds."),
        "reason": _text("Why, one word."),
        "message": _text("Why, a sentence."),
        "revision": _text("Revision of the manifests that it was judged by."),
        "since": _number("When it last changed, in seconds since the epoch.", kind="number"),
    }
    return _map(fields, "A condition.")


def _runtime() -> Schema:
    fields = {
        "pid": _number("Process id of init.", or_null=True),
        "cgroup": _text_or_null("Path of the cgroup that holds the limits."),
        "netns": _text_or_null("Path of the network namespace."),
        "rootfs": _text_or_null("Path of the root file system, as the host can reach it."),
        "idBase": _number("First user and group id of its range on the host.", or_null=True),
    }
    return _map(fields, "Where the VE is on the host; null for what there is not.")


def _get() -> Schema:
    item: dict[str, Schema] = {
        "name": _text("Name."),
        "uid": _text_or_null("Identity; null before it is created."),
        "host": _text_or_null("Host."),
        "power": _word((*(power.value for power in Power), "created", "unknown"), "Whether it runs."),
        "conditions": _list(_condition(), "Conditions; Ready is always among them."),
        "desired": _any("What the manifests ask for, with the fields of spec in canonical form; null without one."),
        "observed": _any("What the host was seen to hold, with the same fields."),
        "runtime": _runtime(),
        "unknown": _list(_text("A path."), "Facts that could not be read."),
    }
    fields = {
        "format": _format(),
        "host": _text("Host that was asked."),
        "revision": _text("Revision of the manifests in force."),
        "items": _list(_map(item, "A VE."), "VEs."),
    }
    return _map(fields, "What `vectl get -o json` prints.")


def _beancounters() -> Schema:
    row: dict[str, Schema] = {
        "resource": _word((resource.value for resource in Resource), "Resource, by OpenVZ's name."),
        "unit": _word(("bytes", "items"), "What it is counted in; also bytes where OpenVZ counts pages."),
        "held": _number("What is in use now; null where this host does not count it.", or_null=True),
        "maxheld": _number("The most that was in use, over restarts."),
        "barrier": _number("Barrier; null for none.", or_null=True),
        "limit": _number("Limit; null for unlimited.", or_null=True),
        "failcnt": _number("How often a bound was met, over restarts; never falls."),
        "enforcement": _word((word.value for word in Enforcement), "Whether the kernel holds the limit."),
        "by": _text("What holds it; empty where it is only observed."),
    }
    item: dict[str, Schema] = {
        "name": _text("Name."),
        "uid": _text("Identity."),
        "counters": _list(_map(row, "A resource."), "Resources, in OpenVZ's order."),
    }
    fields = {
        "format": _format(),
        "host": _text("Host that was asked."),
        "items": _list(_map(item, "A VE."), "VEs."),
    }
    return _map(fields, "What `vectl beancounters -o json` prints.")


def _quota() -> Schema:
    item: dict[str, Schema] = {
        "kind": _word((kind.value for kind in QuotaKind), "Whose quota."),
        "id": _number("Number of the user or group inside the VE."),
        "used": _number("Bytes that its files take."),
        "soft": _number("Bytes that may be exceeded for the time of grace; null for unlimited.", or_null=True),
        "hard": _number("Bytes that are never exceeded; null for unlimited.", or_null=True),
        "graceEnds": _number("When grace ends, seconds since the epoch; null while soft holds.", or_null=True),
        "files": _number("Number of its files."),
        "softFiles": _number("Files that may be exceeded for the time of grace; null for unlimited.", or_null=True),
        "hardFiles": _number("Files that are never exceeded; null for unlimited.", or_null=True),
        "graceEndsFiles": _number("When grace ends, seconds since the epoch; null while soft holds.", or_null=True),
    }
    disk: dict[str, Schema] = {
        "used": _number("Bytes that all files take.", or_null=True),
        "size": _number("Size of the VE's own file system, in bytes.", or_null=True),
        "files": _number("Number of all files.", or_null=True),
        "inodes": _number("How many files there may be; null for as many as fit.", or_null=True),
    }
    fields: dict[str, Schema] = {
        "format": _format(),
        "name": _text("Name."),
        "uid": _text("Identity."),
        "disk": _map(disk, "The whole of it."),
        "items": _list(_map(item, "A user or group."), "Users, then groups, that have files or limits."),
    }
    return _map(fields, "What `vectl quota -o json` prints.")


def _audit() -> Schema:
    action = {
        "op": _word((op.value for op in Operation), "What happened to the object."),
        "path": _text("Path of the field; empty for the object as a whole."),
        "impact": _word((impact.word for impact in Impact), "What it did to the VE, from harmless to worst."),
        "origin": _word((origin.value for origin in Origin), "Who wanted it."),
        "reason": _word((reason.value for reason in Reason), "Why it was planned."),
        "before": _any("Value before; a long one by its SHA-256 and size."),
        "after": _any("Value after; a long one by its SHA-256 and size."),
        "outcome": _word(("done", "failed"), "How it ended."),
    }
    fields: dict[str, Schema] = {
        "format": _format(),
        "at": _number("When, in seconds since the epoch.", kind="number"),
        "who": _text("Who committed the revision or asked; `vectl` for drift and schedules; empty where nobody knows."),
        "signer": _text("Whose signature vouches for the revision; empty for none."),
        "revision": _text("Revision of the manifests; of a git source the commit. Empty for a request."),
        "plan": _text("Hash of the plan that the revision made on this host."),
        "ve": _text("Name of the VE, or of an object of the host."),
        "ve_hash": _text("Hash of the VE's part of the plan."),
        "request": _text("What a person asked for, one word; empty for actions."),
        "detail": _text("How it was asked for."),
        "actions": _list(_map(action, "An action."), "What was carried out."),
        "outcome": _word(("done", "failed"), "How it ended."),
        "error": _text("What went wrong; empty for nothing."),
        "lost": _number("Entries before this one that could not be written."),
        "seq": _number("Number of the entry, from 1."),
        "prev": _text("Hash of the entry before."),
        "hash": _text("SHA-256 of this entry without `format` and `hash`: JSON with sorted keys."),
    }
    return _map(fields, "Each line that `vectl audit -o json` prints.")


def _notification() -> Schema:
    notice = {
        "topic": _word(("failure", "recovery", "applied"), "What kind of news it is."),
        "subject": _text("Name of the VE, `source`, `host`, an object of the host, or the host's name."),
        "reason": _text("One word; of a failure that of its condition."),
        "message": _text("A sentence, cut where it is long."),
        "at": _number("Since when it is so, in seconds since the epoch.", kind="number"),
        "revision": _text("Revision in force."),
    }
    fields: dict[str, Schema] = {
        "format": _format(),
        "host": _text("Host that tells it."),
        "notices": _list(_map(notice, "A piece of news."), "What is told, 50 at most."),
        "more": _number("How many more there are."),
    }
    return _map(fields, "What a webhook of `notify` is sent.")


def _validate() -> Schema:
    error = {
        "file": _text("File; - for standard input."),
        "line": _number("Line, from 1."),
        "column": _number("Column, from 1."),
        "path": _text("Path of the field, such as spec.interfaces[0].addresses[1]."),
        "message": _text("What was expected."),
        "hint": _text("What to do; empty where there is nothing to say."),
    }
    fields: dict[str, Schema] = {
        "format": _format(),
        "valid": {"type": "boolean", "description": "Whether there are no errors."},
        "errors": _list(_map(error, "An error."), "All errors of all files."),
    }
    return _map(fields, "What `vectl validate -o json` prints.")


def _import() -> Schema:
    entry: dict[str, Schema] = {
        "file": _text("File that was imported."),
        "line": _number("Line, from 1; 0 where it is about the whole file."),
        "key": _text("Key."),
        "value": _text_or_null("What it says, shortened; null where it may be a secret."),
        "outcome": _word(
            ("mapped", "changed", "dropped", "ignored", "guessed"),
            "mapped: a field says the same. changed: nearly the same. dropped: it is lost. ignored: nothing is lost. "
            "guessed: no key says what a field had to.",
        ),
        "object": _text("Name of the VE, or profile/NAME, network/NAME, template/NAME; empty for none."),
        "path": _text("Field of its spec; empty for none."),
        "message": _text("Why; empty where it is mapped."),
    }
    file: dict[str, Schema] = {
        "file": _text("File, below the directory of manifests."),
        "kind": _text("Kind of the manifest in it."),
        "name": _text("Name of the object."),
    }
    outcomes = ("mapped", "changed", "dropped", "ignored", "guessed")
    fields: dict[str, Schema] = {
        "format": _format(),
        "system": _text("Where it came from: openvz, proxmox, incus or rootfs."),
        "files": _list(_map(file, "A manifest."), "Manifests that were written."),
        "summary": _map({name: _number(f"Number of entries: {name}.") for name in outcomes}, "The account in numbers."),
        "entries": _list(_map(entry, "What became of a key."), "The account of every key, by file and line."),
    }
    return _map(fields, "What `vectl import ... -o json` prints.")


def _balance_fields() -> dict[str, Schema]:
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
        "resource": _word((resource.value for resource in capacity.Resource), "The resource."),
        "overcommit": _number(
            "How many times what is not reserved may be promised as limits; null for any.", kind="number", or_null=True
        ),
        **{name: _number(f"{what} Bytes, or CPUs.", kind="number", or_null=True) for name, what in sizes.items()},
    }


def _capacity() -> Schema:
    host: dict[str, Schema] = {
        "host": _text("Name."),
        "ves": _number("Number of VEs that are counted."),
        "resources": _list(_map(_balance_fields(), "A resource."), "Resources."),
        "warnings": _list(_text("A sentence."), "What its administrator should know."),
    }
    return _map(
        {"format": _format(), "hosts": _list(_map(host, "A host."), "Hosts.")}, "What `vectl capacity -o json` prints."
    )


def _apply() -> Schema:
    action = {
        **_action_fields(),
        "outcome": _text("How it ended, one word."),
        "elapsed": _number("Seconds that it took.", kind="number"),
        "error": _text("What went wrong."),
    }
    last: dict[str, Schema] = {
        "summary": _any("The outcomes in numbers."),
        "converged": {"type": "boolean", "description": "Whether the host now is as desired."},
        "effects": _number("Calls that changed something on the host."),
    }
    return {
        "description": "Each line that `vectl apply -o json` prints: one for each action, and a last one.",
        "oneOf": [
            _map(action, "An action that was carried out.", optional=("error",)),
            _map(last, "The last line."),
        ],
    }


def _source_check() -> Schema:
    probe = _map(
        {
            "name": _text("The step, such as connection, login, ref, signatures or manifests."),
            "level": _word(("OK", "WARN", "FAIL"), "How it went; nothing comes after a FAIL."),
            "found": _text("What was found."),
            "remedy": _text("What to do; empty where nothing is to be done."),
        },
        "One step on the way from the configuration to the manifests.",
    )
    return _map(
        {
            "format": _format(),
            "ok": {"type": "boolean", "description": "Whether the newest manifests can be taken."},
            "probes": _list(probe, "The steps in their order."),
        },
        "What `vectl source check` found.",
    )


def _source_verify() -> Schema:
    word = _map(
        {
            "kind": _word(("reviewed", "approved"), "What was said."),
            "hash": _text("The hash of a plan, or of a VE's part, of which it was said."),
            "by": _text("Who said it, by the trust file."),
            "at": _number("When, in seconds since the epoch.", kind="number"),
        },
        "What somebody vouched for.",
    )
    step = _map(
        {
            "commit": _text("The commit."),
            "signer": _text_or_null("Who vouches for it, by the trust file; null for nobody."),
            "at": _number("When it was made, in seconds since the epoch.", kind="number"),
            "subject": _text("The first line of its message."),
            "vouched": _list(word, "What counts of what was said in its trailers and in signed notes on it."),
        },
        "A commit on the way.",
    )
    return _map(
        {
            "format": _format(),
            "commit": _text("The commit that was asked about."),
            "state": _word(("trusted", "refused", "unknown"), "Whether it may be acted upon."),
            "reason": _text("The reason of the condition Verified."),
            "message": _text("What is wrong with which commit, and the remedy; empty where nothing is."),
            "way": _list(step, "The commits since the one that was trusted, oldest first; empty if it is refused."),
        },
        "What `vectl source verify` found.",
    )


def _source_status() -> Schema:
    return _map(
        {
            "format": _format(),
            "source": _text("The name under which VEs of this source are recorded."),
            "kind": _word(("directory", "git"), "What it is."),
            "remotes": _list(_text("An address, without user and query."), "The remotes in the order they are tried."),
            "ref": _text("The full ref, or the commit, that is followed; empty for a directory."),
            "subdir": _text("The folder of the repository; empty for all of it."),
            "mirror": _text_or_null("The directory of the mirror; null if there is none."),
            "agent": {"type": "boolean", "description": "Whether an agent runs that follows the source."},
            "revision": _text("The revision in force; empty if there is none."),
            "takenFrom": _text("The source that the revision in force came from."),
            "takenAt": _number("When it came into force, in seconds since the epoch.", kind="number", or_null=True),
            "conditions": _list(_condition(), "What is said of the source: Fetched, Verified, Valid."),
        },
        "What `vectl source status` shows.",
    )
