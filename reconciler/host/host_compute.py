"""What bounds all VEs of the instance together: its own cgroup, beside everything else at the root."""

from __future__ import annotations

from reconciler.errors import ReadBackError
from reconciler.host.site import Site
from reconciler.kernel import cgroup_instance, cgroup_limits
from reconciler.model.compute import HostComputeObservation, Limit, SetInstanceLimit


def observe(site: Site) -> HostComputeObservation:
    """Read the limits of the instance's cgroup, and what it competes with.

    Raises: KernelError.
    """
    return HostComputeObservation(
        limits={Limit(name): value for name, value in _read(site).items()},
        rivals=cgroup_instance.rivals(site.layout, site.instance.cgroup),
    )


def _read(site: Site) -> dict[str, int]:
    return cgroup_instance.read_limits(site.layout, site.instance.cgroup)


def set_limit(site: Site, effect: SetInstanceLimit) -> None:
    """Write one limit of the instance's cgroup, which is made if it is not there, and read it back.

    Raises: KernelError; ReadBackError; TerminalError, if this host cannot enforce it.
    """
    cgroup_instance.write_limit(site.layout, site.instance.cgroup, effect.limit.value, effect.value)
    expected = cgroup_limits.stored_value(site.layout, effect.limit.value, effect.value)
    seen = _read(site).get(effect.limit.value)
    if seen != expected:
        raise ReadBackError(f"set {effect.limit} of {site.instance.cgroup}: wrote {expected!r}, read {seen!r}")
