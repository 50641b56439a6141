"""Naming: the hostname of a VE and where its resolver asks, in the kernel and in the VE's own files."""

from __future__ import annotations

import asyncio
import errno

from reconciler.errors import KernelError
from reconciler.host import interface_ends
from reconciler.host.namespaces import Inside
from reconciler.host.site import Site
from reconciler.kernel import rootfs, userns, uts
from reconciler.model.identity import Uid
from reconciler.model.network import Resolver, SetHostname, SetResolver

_RESOLVER_MARK = "# written by vectl from the manifest"
_RESOLVER_MAX = 16 << 10
"""Longer than any that we write: what the VE's root has made of one is not shown to anybody. Units: bytes."""

_NO_FILE_OF_OURS = frozenset({0, errno.EAGAIN, errno.EFBIG, errno.ELOOP, errno.ENXIO, errno.EXDEV})
"""How reading fails where a directory, a device, a huge file, a loop of links, a socket or a mount stands, or a lease
is held on the file."""


def read_resolver(into: Inside) -> Resolver | None:
    """Read the resolver that we wrote; whatever else the VE's root has put there is none of ours, and is replaced."""
    try:
        with into.root() as root:
            data = rootfs.read_in_root(root, "etc/resolv.conf")
    except KernelError as err:
        if err.errno not in _NO_FILE_OF_OURS:
            raise
        return None
    lines = (data or b"").decode(errors="replace").splitlines()
    if not lines or lines[0] != _RESOLVER_MARK or len(data or b"") > _RESOLVER_MAX:
        return None
    servers: list[str] = []
    search: list[str] = []
    for line in lines[1:]:
        key, _, rest = line.partition(" ")
        (servers if key == "nameserver" else search).extend(rest.split())
    return Resolver(servers=tuple(servers), search=tuple(search))


def _render_resolver(resolver: Resolver) -> str:
    search = [f"search {' '.join(resolver.search)}"] if resolver.search else []
    return "\n".join([_RESOLVER_MARK, *search, *(f"nameserver {server}" for server in resolver.servers), ""])


async def set_hostname(site: Site, effect: SetHostname) -> None:
    """Set the hostname in the VE's namespace and in its file.

    Raises: KernelError, if it is too long; StateError, if the VE does not run.
    """
    into = interface_ends.inside(site, effect.uid)
    uts.set_hostname(into.uts, effect.hostname)
    await _write(site, effect.uid, into, "etc/hostname", f"{effect.hostname}\n")


async def set_resolver(site: Site, effect: SetResolver) -> None:
    """Write the VE's /etc/resolv.conf, whatever the VE's root has put in its place.

    Raises: KernelError, if /etc is not to be written in; StateError, if the VE does not run.
    """
    into = interface_ends.inside(site, effect.uid)
    await _write(site, effect.uid, into, "etc/resolv.conf", _render_resolver(effect.resolver))


async def _write(site: Site, uid: Uid, into: Inside, path: str, text: str) -> None:
    owner = site.need_record(uid).id_base
    try:
        with into.root() as root:
            await asyncio.to_thread(_write_as, owner, root, path, text)
    except KernelError as err:
        volume = site.instance.volume(uid)
        raise KernelError(
            f"name VE {uid}: {err}; put it right inside it, or in {volume}/upper", errno=err.errno
        ) from err


def _write_as(owner: int, root: int, path: str, text: str) -> None:
    with userns.acting_as(owner, owner):
        rootfs.write_in_root(root, path, text.encode(), mode=0o644, uid=owner, gid=owner)
