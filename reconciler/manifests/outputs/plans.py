"""What plans, and what carries them out or refuses to, print."""

from __future__ import annotations

from reconciler.manifests.outputs import parts, standing
from reconciler.manifests.outputs.parts import Schema
from reconciler.model.action import Basis, Impact, Operation, Origin, Reason, Reversible


def _action_fields() -> dict[str, Schema]:
    return {
        "ve": parts.text(
            "Name of the VE, or `network/NAME`, `host/filter`, `host/cgroup`, `template/NAME@DIGEST` of the host."
        ),
        "op": parts.word((op.value for op in Operation), "What happens to the object."),
        "path": parts.text("Path of the field; empty for the object as a whole."),
        "before": parts.anything("Observed value, in canonical form; null for none or unlimited."),
        "after": parts.anything("Desired value, in canonical form; null for none or unlimited."),
        "reason": parts.word((reason.value for reason in Reason), "Why it is in the plan."),
        "impact": parts.word((impact.word for impact in Impact), "What it does to the VE, from harmless to worst."),
        "downtime": parts.record(
            {
                "seconds": parts.number("Seconds; null where nobody knows.", kind="number", or_null=True),
                "basis": parts.word((basis.value for basis in Basis), "Where the number comes from."),
            },
            "For how long the VE is away.",
        ),
        "reversible": parts.word(
            (word.value for word in Reversible), "Whether reverting the manifests brings it back."
        ),
        "origin": parts.word((origin.value for origin in Origin), "Who wants it."),
    }


def _refusal() -> Schema:
    fields = {
        "ve": parts.text("Name of the VE."),
        "rule": parts.text("The rule, one word."),
        "message": parts.text("What will not be done, and why."),
        "remedy": parts.text("How to allow it."),
    }
    return parts.record(fields, "Something that will not be done.")


def plan() -> Schema:
    """Describe `vectl plan -o json`."""
    names = [*(op.value for op in Operation), "drift"]
    summary = {name: parts.number(f"Number of VEs of which something is of this kind: {name}.") for name in names}
    fields = {
        "format": parts.format_number(),
        "host": parts.text("Host that the plan is for."),
        "revision": parts.text("Revision of the manifests."),
        "action_hash": parts.text("Names the actions that come from the manifests; what a consent is bound to."),
        "summary": parts.record(summary, "The plan in numbers."),
        "actions": parts.array(parts.record(_action_fields(), "One step."), "Steps, in their order."),
        "refused": parts.array(_refusal(), "What will not be done."),
        "notes": parts.array(parts.text("A sentence."), "What else a reader should know of the host."),
        "unknown": parts.array(
            parts.text("A path."), "Facts that could not be read; what depends on them is not changed."
        ),
    }
    return parts.record(fields, "What `vectl plan -o json` prints.", optional=("notes",))


def plan_between() -> Schema:
    """Describe `vectl plan --from -o json`."""
    balances = parts.array(parts.record(standing.balance_fields(), "A resource."), "Resources.")
    capacity_of: dict[str, Schema] = {
        "host": parts.text("Name."),
        "ves": parts.number("Number of VEs that the later revision puts on it."),
        "before": balances,
        "after": balances,
    }
    fields: dict[str, Schema] = {
        "format": parts.format_number(),
        "from": parts.text("Commit of --from."),
        "to": parts.text("Commit of --to."),
        "base": parts.text(
            "Commit that --to is compared with: where the ways of both part, or the last valid one before."
        ),
        "notes": parts.array(parts.text("A sentence."), "What else a reviewer should know."),
        "hosts": parts.array(plan(), "The plan of each host: against what was seen of it, else against the base."),
        "action_hashes": {
            "type": "object",
            "description": "By host, the hash of what lies between the revisions: what a host compares a review with.",
        },
        "capacity": parts.array(parts.record(capacity_of, "A host."), "What is promised of each host."),
        "observed": {
            "type": "object",
            "description": "By host that somebody looked at, when: seconds since the epoch; null where it is not told.",
        },
    }
    return parts.record(fields, "What `vectl plan --from A --to B -o json` prints.")


def apply() -> Schema:
    """Describe `vectl apply -o json`."""
    action = {
        **_action_fields(),
        "outcome": parts.text("How it ended, one word."),
        "elapsed": parts.number("Seconds that it took.", kind="number"),
        "error": parts.text("What went wrong."),
    }
    last: dict[str, Schema] = {
        "summary": parts.anything("The outcomes in numbers."),
        "converged": {"type": "boolean", "description": "Whether the host now is as desired."},
        "effects": parts.number("Calls that changed something on the host."),
    }
    return {
        "description": "Each line that `vectl apply -o json` prints: one for each action, and a last one.",
        "oneOf": [
            parts.record(action, "An action that was carried out.", optional=("error",)),
            parts.record(last, "The last line."),
        ],
    }


def place() -> Schema:
    """Describe `vectl place -o json`."""
    move: dict[str, Schema] = {
        "ve": parts.text("Name of the VE."),
        "from": parts.text_or_null("Host that its manifest names; null for none."),
        "to": parts.text("Host that is proposed."),
        "wave": parts.number("When it moves, from 1; those of one number move at once."),
        "reason": parts.text("Why."),
    }
    of_host = {"host": parts.text("Name."), "reason": parts.text("Why the VE cannot come there.")}
    unplaced: dict[str, Schema] = {
        "ve": parts.text("Name of the VE."),
        "host": parts.text_or_null("Host that its manifest names; null for none."),
        "reason": parts.text("What holds it where it is; empty where the hosts say it."),
        "hosts": parts.array(parts.record(of_host, "A host."), "Why it cannot come to any."),
    }
    share = "the share that is promised of what most is promised of; null where nobody knows."
    host: dict[str, Schema] = {
        "host": parts.text("Name."),
        "closed": parts.text("Why nobody is placed on it; empty where somebody may be."),
        "ves_before": parts.number("Number of VEs now."),
        "ves_after": parts.number("Number of VEs then."),
        "full_before": parts.number(f"Now: {share}", kind="number", or_null=True),
        "full_after": parts.number(f"Then: {share}", kind="number", or_null=True),
    }
    fields: dict[str, Schema] = {
        "format": parts.format_number(),
        "moves": parts.array(parts.record(move, "A VE and its host."), "Who is to be where, wave by wave."),
        "unplaced": parts.array(parts.record(unplaced, "A VE."), "VEs for which no host was found."),
        "hosts": parts.array(parts.record(host, "A host."), "Hosts before and after."),
        "notes": parts.array(parts.text("A sentence."), "What else one should know."),
    }
    return parts.record(fields, "What `vectl place -o json` prints.")


def validate() -> Schema:
    """Describe `vectl validate -o json`."""
    error = {
        "file": parts.text("File; - for standard input."),
        "line": parts.number("Line, from 1."),
        "column": parts.number("Column, from 1."),
        "path": parts.text("Path of the field, such as spec.interfaces[0].addresses[1]."),
        "message": parts.text("What was expected."),
        "hint": parts.text("What to do; empty where there is nothing to say."),
    }
    fields: dict[str, Schema] = {
        "format": parts.format_number(),
        "valid": {"type": "boolean", "description": "Whether there are no errors."},
        "errors": parts.array(parts.record(error, "An error."), "All errors of all files."),
        "warnings": parts.array(parts.record(error, "A warning."), "What is valid and perhaps not what was meant."),
    }
    return parts.record(fields, "What `vectl validate -o json` prints.", optional=("warnings",))


def import_() -> Schema:
    """Describe `vectl import -o json`."""
    entry: dict[str, Schema] = {
        "file": parts.text("File that was imported."),
        "line": parts.number("Line, from 1; 0 where it is about the whole file."),
        "key": parts.text("Key."),
        "value": parts.text_or_null("What it says, shortened; null where it may be a secret."),
        "outcome": parts.word(
            ("mapped", "changed", "dropped", "ignored", "guessed"),
            "mapped: a field says the same. changed: nearly the same. dropped: it is lost. ignored: nothing is lost. "
            "guessed: no key says what a field had to.",
        ),
        "object": parts.text("Name of the VE, or profile/NAME, network/NAME, template/NAME; empty for none."),
        "path": parts.text("Field of its spec; empty for none."),
        "message": parts.text("Why; empty where it is mapped."),
    }
    file: dict[str, Schema] = {
        "file": parts.text("File, below the directory of manifests."),
        "kind": parts.text("Kind of the manifest in it."),
        "name": parts.text("Name of the object."),
    }
    outcomes = ("mapped", "changed", "dropped", "ignored", "guessed")
    fields: dict[str, Schema] = {
        "format": parts.format_number(),
        "system": parts.text("Where it came from: openvz, proxmox, incus or rootfs."),
        "files": parts.array(parts.record(file, "A manifest."), "Manifests that were written."),
        "summary": parts.record(
            {name: parts.number(f"Number of entries: {name}.") for name in outcomes}, "The account in numbers."
        ),
        "entries": parts.array(
            parts.record(entry, "What became of a key."), "The account of every key, by file and line."
        ),
    }
    return parts.record(fields, "What `vectl import ... -o json` prints.")
