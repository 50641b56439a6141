"""What tells of a source, and of what came of it, prints or sends."""

from __future__ import annotations

from reconciler.manifests.outputs import parts, standing
from reconciler.manifests.outputs.parts import Schema
from reconciler.model.action import Impact, Operation, Origin, Reason


def source_check() -> Schema:
    """Describe `vectl source check -o json`."""
    probe = parts.record(
        {
            "name": parts.text("The step, such as connection, login, ref, signatures or manifests."),
            "level": parts.word(("OK", "WARN", "FAIL"), "How it went; nothing comes after a FAIL."),
            "found": parts.text("What was found."),
            "remedy": parts.text("What to do; empty where nothing is to be done."),
        },
        "One step on the way from the configuration to the manifests.",
    )
    return parts.record(
        {
            "format": parts.format_number(),
            "ok": {"type": "boolean", "description": "Whether the newest manifests can be taken."},
            "probes": parts.array(probe, "The steps in their order."),
        },
        "What `vectl source check` found.",
    )


def source_verify() -> Schema:
    """Describe `vectl source verify -o json`."""
    word = parts.record(
        {
            "kind": parts.word(("reviewed", "approved"), "What was said."),
            "hash": parts.text("The hash of a plan, or of a VE's part, of which it was said."),
            "by": parts.text("Who said it, by the trust file."),
            "at": parts.number("When, in seconds since the epoch.", kind="number"),
        },
        "What somebody vouched for.",
    )
    step = parts.record(
        {
            "commit": parts.text("The commit."),
            "signer": parts.text_or_null("Who vouches for it, by the trust file; null for nobody."),
            "at": parts.number("When it was made, in seconds since the epoch.", kind="number"),
            "subject": parts.text("The first line of its message."),
            "vouched": parts.array(word, "What counts of what was said in its trailers and in signed notes on it."),
        },
        "A commit on the way.",
    )
    return parts.record(
        {
            "format": parts.format_number(),
            "commit": parts.text("The commit that was asked about."),
            "state": parts.word(("trusted", "refused", "unknown"), "Whether it may be acted upon."),
            "reason": parts.text("The reason of the condition Verified."),
            "message": parts.text("What is wrong with which commit, and the remedy; empty where nothing is."),
            "way": parts.array(
                step, "The commits since the one that was trusted, oldest first; empty if it is refused."
            ),
        },
        "What `vectl source verify` found.",
    )


def source_status() -> Schema:
    """Describe `vectl source status -o json`."""
    return parts.record(
        {
            "format": parts.format_number(),
            "source": parts.text("The name under which VEs of this source are recorded."),
            "kind": parts.word(("directory", "git"), "What it is."),
            "remotes": parts.array(
                parts.text("An address, without user and query."), "The remotes in the order they are tried."
            ),
            "ref": parts.text("The full ref, or the commit, that is followed; empty for a directory."),
            "subdir": parts.text("The folder of the repository; empty for all of it."),
            "mirror": parts.text_or_null("The directory of the mirror; null if there is none."),
            "agent": {"type": "boolean", "description": "Whether an agent runs that follows the source."},
            "revision": parts.text("The revision in force; empty if there is none."),
            "takenFrom": parts.text("The source that the revision in force came from."),
            "takenAt": parts.number(
                "When it came into force, in seconds since the epoch.", kind="number", or_null=True
            ),
            "conditions": parts.array(standing.condition(), "What is said of the source: Fetched, Verified, Valid."),
        },
        "What `vectl source status` shows.",
    )


def audit() -> Schema:
    """Describe `vectl audit -o json`."""
    action = {
        "op": parts.word((op.value for op in Operation), "What happened to the object."),
        "path": parts.text("Path of the field; empty for the object as a whole."),
        "impact": parts.word((impact.word for impact in Impact), "What it did to the VE, from harmless to worst."),
        "origin": parts.word((origin.value for origin in Origin), "Who wanted it."),
        "reason": parts.word((reason.value for reason in Reason), "Why it was planned."),
        "before": parts.anything("Value before; a long one by its SHA-256 and size."),
        "after": parts.anything("Value after; a long one by its SHA-256 and size."),
        "outcome": parts.word(("done", "failed"), "How it ended."),
    }
    fields: dict[str, Schema] = {
        "format": parts.format_number(),
        "at": parts.number("When, in seconds since the epoch.", kind="number"),
        "who": parts.text(
            "Who committed the revision or asked; `vectl` for drift and schedules; empty where nobody knows."
        ),
        "signer": parts.text("Whose signature vouches for the revision; empty for none."),
        "revision": parts.text("Revision of the manifests; of a git source the commit. Empty for a request."),
        "plan": parts.text("Hash of the plan that the revision made on this host."),
        "ve": parts.text("Name of the VE, or of an object of the host."),
        "ve_hash": parts.text("Hash of the VE's part of the plan."),
        "request": parts.text("What a person asked for, one word; empty for actions."),
        "detail": parts.text("How it was asked for."),
        "actions": parts.array(parts.record(action, "An action."), "What was carried out."),
        "outcome": parts.word(("done", "failed"), "How it ended."),
        "error": parts.text("What went wrong; empty for nothing."),
        "lost": parts.number("Entries before this one that could not be written."),
        "seq": parts.number("Number of the entry, from 1."),
        "prev": parts.text("Hash of the entry before."),
        "hash": parts.text("SHA-256 of this entry without `format` and `hash`: JSON with sorted keys."),
    }
    return parts.record(fields, "Each line that `vectl audit -o json` prints.")


def notification() -> Schema:
    """Describe what a webhook of `notify` gets."""
    notice = {
        "topic": parts.word(("failure", "recovery", "applied"), "What kind of news it is."),
        "subject": parts.text("Name of the VE, `source`, `host`, an object of the host, or the host's name."),
        "reason": parts.text("One word; of a failure that of its condition."),
        "message": parts.text("A sentence, cut where it is long."),
        "at": parts.number("Since when it is so, in seconds since the epoch.", kind="number"),
        "revision": parts.text("Revision in force."),
    }
    fields: dict[str, Schema] = {
        "format": parts.format_number(),
        "host": parts.text("Host that tells it."),
        "notices": parts.array(parts.record(notice, "A piece of news."), "What is told, 50 at most."),
        "more": parts.number("How many more there are."),
    }
    return parts.record(fields, "What a webhook of `notify` is sent.")
