"""Running programs in a VE: what the keeper is asked for, and how its input and output come to whoever asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.errors import StateError
from reconciler.host import accounts, bundle, compute, interface_ends, launching, power, runtime
from reconciler.host.accounts import Account
from reconciler.host.keeper.client import Execution
from reconciler.host.keeper.protocol import Exec
from reconciler.host.site import Site
from reconciler.kernel.execute import ExecSpec
from reconciler.model.identity import Uid

_START_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run. ``args`` empty: the user's login shell. ``user``: ``USER`` or ``USER:GROUP``.

    ``env`` comes on top of what init has and of what the user's account says. ``tty``: on a terminal of the VE.
    """

    args: tuple[str, ...]
    user: str = "root"
    env: Mapping[str, str] = field(default_factory=dict)
    tty: bool = False


async def start(site: Site, uid: Uid, program: Program, *, stdio: tuple[int, int, int] | None) -> Execution:
    """Start a program in a running VE, on these descriptors or on a terminal of its own.

    Raises: StateError, if the VE does not run; UsageError, for a user that it does not have; CommandError with
    status 126 or 127, if the program cannot be executed; TimeLimitError, if the VE is frozen; KeeperError.
    """
    spec = _spec(site, uid, program)
    keeper = await site.keeper()
    return await keeper.execute(Exec(spec=spec, timeout_s=_START_S), stdio=stdio)


def _spec(site: Site, uid: Uid, program: Program) -> ExecSpec:
    init, launch = runtime.need_init(site, uid), power.observe(site, uid).launch
    if launch is None:
        raise StateError(f"run a program in VE {uid}: it is not known what it was launched with; restart it")
    with interface_ends.inside(site, uid).root() as root:
        account = accounts.find(root, program.user)
        cwd = "/" if program.args else accounts.home_or_root(root, account)
    return ExecSpec(
        init=init,
        cgroups=compute.tree(site, uid).inner_directories(),
        args=program.args or (account.shell, "-l"),
        env=_environment(account, program),
        cwd=cwd,
        uid=account.uid,
        gid=account.gid,
        groups=account.groups,
        nesting=launch.nesting,
        rlimits=launching.rlimits(launch),
        tty=program.tty,
    )


def _environment(account: Account, program: Program) -> dict[str, str]:
    own = {"HOME": account.home, "USER": account.name, "LOGNAME": account.name, "SHELL": account.shell}
    return {**bundle.DEFAULT_ENV, **own, **program.env}


def runs_systemd(site: Site, uid: Uid) -> bool:
    """Say whether a running VE's init is systemd, as `runtime.is_systemd` does.

    Raises: StateError, if it does not run; KernelError.
    """
    return runtime.is_systemd(runtime.need_init(site, uid))
