"""Template images that nothing uses any more: kept for a while, since they take time to build, then removed."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.model.action import Action, Impact, Operation, Origin, Phase, Reason
from reconciler.model.facts import Unknown
from reconciler.model.identity import Digest
from reconciler.model.observation import HostObservation
from reconciler.model.volume import ImageObservation, RemoveTemplate
from reconciler.plan.inputs import Inputs

TARGET = "template/"
"""What begins the name that an action has for a template."""

_KEEP_LEAST_S = 3600.0


def plan_unused(inputs: Inputs) -> Iterator[Action]:
    """Yield the removal of images that no manifest, VE, snapshot or entry of the trash names, after a time of grace.

    Nothing, while anything that could use one is not known.
    """
    observed, keep_s = inputs.observed, max(inputs.trash_keep_s, _KEEP_LEAST_S)
    used = used_images(observed)
    if not inputs.prune or used is None or isinstance(observed.templates, Unknown):
        return
    declared = {template.key for template in inputs.fleet.templates.values()}
    for key, digest in sorted(observed.templates.items()):
        image = observed.images.get(digest)
        if key in declared or digest in used or image is None or image.is_original:
            continue
        if inputs.now - image.used_at >= keep_s:
            yield _remove(key, digest, image)


def used_images(observed: HostObservation) -> frozenset[Digest] | None:
    """Give the images that data on the host is on; None, while that is not known."""
    if not observed.complete or isinstance(observed.trash, Unknown):
        return None
    used = {digest for entry in observed.trash for digest in (*entry.images, entry.record.template_digest)}
    for seen in observed.ves.values():
        if isinstance(seen.record, Unknown) or isinstance(seen.snapshots, Unknown):
            return None
        used |= {seen.record.template_digest, *(kept.template_digest for kept in seen.snapshots.snapshots.values())}
        if seen.snapshots.mark is not None:
            used.add(seen.snapshots.mark.template_digest)
    return frozenset(digest for digest in used if digest is not None)


def _remove(key: Digest, digest: Digest, image: ImageObservation) -> Action:
    return Action(
        ve=f"{TARGET}{image.name}@{digest[:12]}",
        uid=None,
        op=Operation.DESTROY,
        path="image",
        before=key,
        after=None,
        reason=Reason.TEMPLATE_UNUSED,
        impact=Impact.NONE,
        origin=Origin.POLICY,
        phase=Phase.PURGE,
        effects=(RemoveTemplate(key=key),),
    )


def unfulfilled(observed: HostObservation, action: Action) -> str:
    """Say what the removal of an image failed to bring about, or "" if it is gone."""
    left = isinstance(observed.templates, Unknown) or action.before in observed.templates
    return "its image is still there" if left else ""
