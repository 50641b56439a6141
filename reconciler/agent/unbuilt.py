"""A plan for a host on which nothing of the instance exists yet: observed from the machine, without touching it."""

from __future__ import annotations

from reconciler.agent import gather
from reconciler.agent.clock import SystemClock
from reconciler.host import compute, host_compute
from reconciler.host.site import Site
from reconciler.model.action import Plan
from reconciler.model.fleet import Fleet
from reconciler.model.instance import Instance
from reconciler.model.network import FilterObservation, FilterRules
from reconciler.model.observation import HostObservation, PoolObservation
from reconciler.plan import planner
from reconciler.plan.inputs import Inputs, is_here
from reconciler.state.config import Config
from reconciler.state.coordinator import DryCoordinator
from reconciler.state.policy import PolicyFile


async def plan_unbuilt(config: Config, fleet: Fleet) -> Plan:
    """Plan everything anew."""
    return await plan_offline(config, fleet, observe_unbuilt(config.instance), source="", prune=False)


def observe_unbuilt(instance: Instance) -> HostObservation:
    """Look at a machine as a host of nothing."""
    site = Site(instance)
    try:
        return HostObservation(
            capabilities=compute.capabilities(site),
            ves={},
            complete=True,
            compute=host_compute.observe(site),
            networks={},
            filter=FilterObservation(rules=FilterRules()),
            templates={},
            trash=(),
            pool=PoolObservation(size=instance.pool_size, free=instance.pool_size),
        )
    finally:
        site.close()


async def plan_offline(config: Config, fleet: Fleet, observed: HostObservation, *, source: str, prune: bool) -> Plan:
    """Plan against an observation that was made elsewhere, or of nothing: whatever is in it counts as made here."""
    instance = config.instance
    names = [name for name, spec in fleet.ves.items() if is_here(spec, instance.host)]
    inputs = Inputs(
        instance=instance.name,
        host=instance.host,
        source=source,
        fleet=fleet,
        observed=observed,
        inventory=frozenset(observed.ves),
        now=SystemClock().now(),
        prune=prune,
        policy=PolicyFile(config.policy).look(),
    )
    return planner.plan_host(await gather.with_allocations(inputs, names, DryCoordinator()))
