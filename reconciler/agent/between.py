"""The plan between two revisions, without a host: one is carried out in memory, the other planned against that.

There is one planner, so a change means the same before the merge and after it. What depends on a host is left out or
taken at its best: every limit can be enforced, its root allows everything, and nothing of it is in use. So the plan is
the same wherever it is made, and what follows on a host from the changes of its VEs (its filter, the weight of all
VEs together) is not part of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_interface

from reconciler.errors import VectlError
from reconciler.model.action import Action, Origin, Plan, Refusal
from reconciler.model.capacity import bounded, supplies
from reconciler.model.compute import Limit
from reconciler.model.facts import Unknown
from reconciler.model.fleet import Fleet, VeSpec
from reconciler.model.identity import Digest, HostName, TemplateName, Uid, VeName
from reconciler.model.instance import Instance
from reconciler.model.observation import ALL_FACETS, EVERYTHING, Capabilities
from reconciler.model.policy import EVERYTHING_ALLOWED
from reconciler.model.power import Power
from reconciler.model.volume import ImageObservation, ImageSource, Record
from reconciler.plan import hashes, host_network, planner
from reconciler.plan.inputs import Inputs, Known, is_here
from reconciler.plan.render import CONSENT_RULES
from reconciler.plan.restriction import Restriction, is_same, restrict, with_known_uids
from reconciler.plan.spec import spec_values
from reconciler.state.coordinator import placeholder
from reconciler.twin import host as twin
from reconciler.twin.clock import StoppedClock
from reconciler.twin.machine import Machine

IDEAL = Capabilities(cgroup="v2", enforceable=frozenset(Limit), nodes=frozenset())
"""A host that can hold every limit, and of whose size nothing is known but what manifests declare."""

_INSTANCE = "vectl"
_SOURCE = "git"
_PASSES = 6
"""To make, to boot, to write down, to take what was to be kept, and to see that nothing is left."""


def plan_between(base: Fleet, head: Fleet, host: HostName) -> Plan:
    """Plan what becomes of a host that is as one revision says when another one takes its place.

    Shape: ``actions`` holds all of them, ``refused`` names besides what of it waits for consent. Equal revisions give
    equal plans, whoever asks; the hashes are those that a host compares with.
    """
    if is_same(base, head, host):
        return Plan(host=host, revision=head.revision, action_hash=hashes.action_hash(()))
    part = restrict(with_known_uids(base, head), head, host)
    around = _Around.of(part, host)
    machine = _machine(part, host)
    _carry_out(machine, part.base, around)
    return _only_its_own(whole_plan(around.inputs(part.head, machine)), machine)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Around:
    """What a plan takes from the VEs that are the same in both revisions, and from how the base left the host."""

    host: HostName
    base: Fleet
    beside: tuple[VeSpec, ...]
    running: frozenset[VeName]
    known: Known

    @classmethod
    def of(cls, part: Restriction, host: HostName) -> _Around:
        are_counted = bool(bounded(supplies(part.head.hosts.get(host), {})))
        here = (*part.beside, *(spec for spec in part.base.ves.values() if is_here(spec, host)))
        return cls(
            host=host,
            base=part.base,
            beside=part.beside,
            running=frozenset(spec.name for spec in here if spec.power.state is Power.RUNNING),
            known=Known(records=_records(part.beside) if are_counted else {}),
        )

    def inputs(self, fleet: Fleet, machine: Machine) -> Inputs:
        """Gather what planning a revision depends on. What runs in the base counts as running while it is made."""
        observed = twin.observe(machine, EVERYTHING, ALL_FACETS)
        assert not isinstance(observed.networks, Unknown)  # nothing in memory is unreadable
        declared = self.base.networks
        inputs = Inputs(
            instance=_INSTANCE,
            host=self.host,
            source=_SOURCE,
            fleet=fleet,
            observed=replace(observed, capabilities=IDEAL),
            inventory=frozenset(observed.ves),
            now=machine.clock.now(),
            running_elsewhere=self.running,
            known=self.known,
            beside=self.beside,
            policy=EVERYTHING_ALLOWED,
            applied_networks={
                name: host_network.record_values(declared[name]) for name in observed.networks if name in declared
            },
        )
        unborn = planner.unborn(inputs)
        return replace(inputs, allocations={name: placeholder(name, fleet.ves[name].uid) for name in unborn})


def _records(specs: Iterable[VeSpec]) -> dict[Uid, Record]:
    """Give the records of VEs that are as their specs say, as far as admission reads them."""
    made = ((placeholder(spec.name, spec.uid), spec) for spec in specs)
    return {
        given.uid: Record(
            uid=given.uid,
            name=spec.name,
            id_base=given.id_base,
            template=spec.volume.template,
            template_digest=None,
            init=(),
            source=_SOURCE,
            created_at=0.0,
            applied=spec_values(spec),
        )
        for given, spec in made
    }


def _machine(part: Restriction, host: HostName) -> Machine:
    """Give an empty host that has all that the manifests name of it."""
    specs = [*part.base.ves.values(), *part.head.ves.values()]
    instance = Instance(name=_INSTANCE, host=host, state_dir="", run_dir="", cgroup="", pool_size=0)
    machine = Machine(instance=instance, capabilities=_able(specs), clock=StoppedClock(), forwards_ipv6=True)
    machine.directories = dict.fromkeys(mount.source for spec in specs for mount in spec.mounts.values())
    machine.device_files = dict.fromkeys(path for spec in specs for path in spec.devices.nodes)
    links = {nic for spec in specs for nic in spec.devices.nics}
    networks = (network for fleet in (part.base, part.head) for network in fleet.networks.values())
    links |= {network.uplink for network in networks if network.uplink is not None}
    machine.host_links = dict.fromkeys(links, "")
    known = (fleet.hosts[host].address for fleet in (part.base, part.head) if host in fleet.hosts)
    machine.host_addresses = {"": frozenset(ip_interface(address) for address in known if address is not None)}
    for template in (*part.base.templates.values(), *part.head.templates.values()):
        if isinstance(template.source, ImageSource):
            _put_image(machine, template.name, Digest(template.source.digest))
    return machine


def _able(specs: Iterable[VeSpec]) -> Capabilities:
    """Give what the host must be able to do for all VEs to run; the planner is not told how many CPUs that takes."""
    wanted = [spec.compute for spec in specs]
    cpus = frozenset(number for one in wanted for number in one.cpus or ())
    return replace(IDEAL, cpus=cpus, nodes=frozenset(number for one in wanted for number in one.nodes or ()))


def _put_image(machine: Machine, name: TemplateName, digest: Digest) -> None:
    now = machine.clock.now()
    machine.images[digest] = ImageObservation(name=name, source="", size=0, built_at=now, used_at=now)


def _carry_out(machine: Machine, base: Fleet, around: _Around) -> None:
    """Bring a host to what a revision says. Where the data of its VEs came from is history: they begin anew."""
    born = {name: replace(spec, source=None) if spec.source else spec for name, spec in base.ves.items()}
    for fleet in (replace(base, ves=born), base):
        for _ in range(_PASSES):
            plan = _with_all_consents(around.inputs(fleet, machine))
            if not plan.actions:
                break
            _apply(machine, plan)


def _apply(machine: Machine, plan: Plan) -> None:
    failed: set[str] = set()
    for action in plan.actions:
        if action.ve not in failed and not _is_done(machine, action):
            failed.add(action.ve)


def _is_done(machine: Machine, action: Action) -> bool:
    """Carry an action out; what no host could do is left undone, as it is there."""
    try:
        for effect in action.effects:
            twin.perform(machine, effect)
    except VectlError:
        return False
    return True


def _with_all_consents(inputs: Inputs) -> Plan:
    plan = planner.plan_host(inputs)
    if not any(refusal.rule in CONSENT_RULES for refusal in plan.refused):
        return plan
    return planner.plan_host(replace(inputs, consents=frozenset({plan.action_hash})))


def whole_plan(inputs: Inputs) -> Plan:
    """Plan a host with everything that waits for consent; ``refused`` says that it does."""
    asking = planner.plan_host(inputs)
    waiting = tuple(refusal for refusal in asking.refused if refusal.rule in CONSENT_RULES)
    if not waiting:
        return asking
    agreed = planner.plan_host(replace(inputs, consents=frozenset({asking.action_hash})))
    return replace(agreed, refused=(*agreed.refused, *waiting))


def _only_its_own(plan: Plan, machine: Machine) -> Plan:
    """Leave out what follows from the VEs on a host, and the identities that are only made up here."""
    own = tuple(action for action in plan.actions if action.uid is not None or action.origin is not Origin.POLICY)
    made_up = frozenset(machine.records)
    return replace(plan, actions=own, refused=tuple(_without_uid(refusal, made_up) for refusal in plan.refused))


def _without_uid(refusal: Refusal, made_up: Iterable[Uid]) -> Refusal:
    remedy = refusal.remedy
    for uid in made_up:
        remedy = remedy.replace(f" (or `uid: {uid}`)", "")
    return replace(refusal, remedy=remedy)
