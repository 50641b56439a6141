"""The namespaces of running VEs, entered once: a netlink socket, the names and the root directory of each are kept."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from reconciler.errors import StateError
from reconciler.kernel import announce, netns, nssysctl, pidfd, sysctl, uts
from reconciler.kernel.pidfd import ProcessId
from reconciler.kernel.rtnlsocket import RtnlSocket
from reconciler.kernel.syscalls import file_errors
from reconciler.model.identity import Uid
from reconciler.model.instance import Instance

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(slots=True)
class Inside:
    """What is kept open of one VE. It belongs to one init: another one has other namespaces."""

    init: ProcessId
    process: int
    net: int
    uts: int
    rtnl: RtnlSocket
    nsid: int
    rootfs: str

    def close(self) -> None:
        """Let go of the VE."""
        self.rtnl.close()
        for descriptor in (self.process, self.net, self.uts):
            with suppress(OSError):
                os.close(descriptor)

    @contextmanager
    def opened_ipc(self) -> Iterator[int]:
        """Open the VE's IPC namespace.

        Raises: StateError, if the init is gone; KernelError.
        """
        descriptor = nssysctl.open_ipc_of(self.init.pid)
        try:
            if pidfd.has_ended(self.process):  # then the pid may have been another process's when it was opened
                raise StateError(f"open IPC namespace of process {self.init.pid}: it has ended")
            yield descriptor
        finally:
            os.close(descriptor)

    def expect_own_root(self) -> None:
        """Expect that the mount table of the VE is its own.

        Raises: StateError, in the middle of a restore; KernelError.
        """
        path = f"/proc/{self.init.pid}/root"
        with file_errors("look at", path):
            if os.path.samestat(os.stat(path), os.stat("/")):
                raise StateError(f"open {path}: the VE is being restored; start it first")

    @contextmanager
    def root(self) -> Iterator[int]:
        """Open the VE's root directory; everything below it is hostile.

        Raises: StateError, if the init is gone; KernelError.
        """
        path = f"/proc/{self.init.pid}/root"
        descriptor = _open_root(path, self.rootfs)
        try:
            if pidfd.has_ended(self.process):  # then the pid may have been another process's when it was opened
                raise StateError(f"open {path}: the VE's init has ended")
            yield descriptor
        finally:
            os.close(descriptor)


def _open_root(path: str, rootfs: str) -> int:
    """Open the root directory of a process.

    In the middle of a restore that is still the host's, and the VE's is where it was mounted to be restored in.
    """
    with file_errors("open", path):
        descriptor = os.open(path, _DIRECTORY)
        if not os.path.samestat(os.fstat(descriptor), os.stat("/")):
            return descriptor
        os.close(descriptor)
        return os.open(f"{path}{rootfs}", _DIRECTORY | os.O_NOFOLLOW)


@dataclass(slots=True)
class Namespaces:
    """The VEs whose namespaces are open, by uid. ``instance`` says where their root directories are mounted."""

    instance: Instance
    _open: dict[Uid, Inside] = field(default_factory=dict)

    def of(self, uid: Uid, init: ProcessId, host: RtnlSocket) -> Inside:
        """Give a VE's namespaces, opened now if they are not or if its init is another one since.

        Raises: StateError, if the init is gone; KernelError.
        """
        known = self._open.get(uid)
        if known is not None and known.init == init and known.rtnl.fileno() >= 0:  # closed at a table without end
            return known
        self.forget(uid)
        self._open[uid] = inside = _enter(init, host, rootfs=self.instance.ve_rootfs(uid))
        return inside

    def held(self, uid: Uid) -> Inside | None:
        """Give what is kept open of a VE, which may have ended since."""
        return self._open.get(uid)

    def forget(self, uid: Uid) -> None:
        """Close what is kept of a VE."""
        known = self._open.pop(uid, None)
        if known is not None:
            known.close()

    def uid_of(self, nsid: int) -> Uid | None:
        """Say whose network namespace has a number on this host."""
        return next((uid for uid, inside in self._open.items() if inside.nsid == nsid), None)

    def keep_only(self, uids: Iterable[Uid]) -> None:
        """Close what is kept of all other VEs."""
        for uid in self._open.keys() - set(uids):
            self.forget(uid)

    def close(self) -> None:
        """Close everything."""
        self.keep_only(())


def _enter(init: ProcessId, host: RtnlSocket, *, rootfs: str) -> Inside:
    process = pidfd.open_process(init)
    if process is None:
        raise StateError(f"enter namespaces of process {init.pid}: it has ended")
    with ExitStack() as undo:
        undo.callback(os.close, process)
        net = netns.open_of(init.pid, pidfd=process)
        undo.callback(os.close, net)
        names = uts.open_of(init.pid, pidfd=process)
        undo.callback(os.close, names)
        rtnl = netns.call_in(net, _settle_in)
        undo.callback(rtnl.close)
        nsid = host.assign_nsid(net)
        undo.pop_all()
    return Inside(init=init, process=process, net=net, uts=names, rtnl=rtnl, nsid=nsid, rootfs=rootfs)


def _settle_in() -> RtnlSocket:
    """Set up a network namespace from within it, before it has links, and open the socket that is kept of it.

    Without the parameter the kernel takes a subnet's other addresses away with its first one, in the middle of a
    renumbering.
    """
    sysctl.write("net.ipv4.conf.all.promote_secondaries", "1")
    announce.enable()
    return RtnlSocket.open_in_place()


def read_hostnames(insides: Iterable[Inside]) -> list[str]:
    """Read the hostnames of several VEs.

    Raises: KernelError.
    """
    return uts.read_hostnames([inside.uts for inside in insides])
