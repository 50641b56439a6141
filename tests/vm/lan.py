"""Several guests on one LAN: a bridge in a network namespace of the tests, with a tap for each guest."""

import collections.abc
import contextlib
import dataclasses
import subprocess

from tests.vm import guest, image, saved

ADDRESS = "10.77.0.{}"
PREFIX = 24
MAC = "52:54:00:77:00:{:02x}"
PLUG_SECONDS = 60
PING_SECONDS = 60


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A host on the LAN, which knows the others by name."""

    name: str
    address: str
    mac: str
    guest: guest.Guest


@contextlib.contextmanager
def hosts(state: saved.Saved, count: int) -> collections.abc.Iterator[tuple[Member, ...]]:
    """Run guests from one state, named `host1` and so on, each with an address on a LAN that leads nowhere else.

    Raises: GuestError, QmpError, subprocess.CalledProcessError.
    """
    with contextlib.ExitStack() as exits:
        inside = exits.enter_context(switch(count))
        members = []
        for number in range(1, count + 1):
            name = f"host{number}"
            member = Member(
                name=name,
                address=ADDRESS.format(number),
                mac=MAC.format(number),
                guest=exits.enter_context(saved.restored(state, name, prefix=inside)),
            )
            plug_in(member, tap=f"tap{number}")
            members.append(member)
        introduce(members)
        yield tuple(members)


@contextlib.contextmanager
def switch(ports: int) -> collections.abc.Iterator[tuple[str, ...]]:
    """Make a bridge with taps in a network namespace, which ends with this; gives the command that enters it."""
    # Held by a process rather than by a name: nothing is left when the driver is killed.
    holder = ("setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", "echo; exec sleep infinity")
    with subprocess.Popen(holder, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            inside = ("nsenter", f"--net=/proc/{process.pid}/ns/net")
            image.call(
                *inside, "sh", "-ec", "; ".join(["ip link add lan type bridge && ip link set lan up", *taps(ports)])
            )
            yield inside
        finally:
            process.kill()


def taps(ports: int) -> list[str]:
    """Write the commands that make the taps."""
    names = [f"tap{number}" for number in range(1, ports + 1)]
    return [f"ip tuntap add {name} mode tap && ip link set {name} master lan up" for name in names]


def plug_in(member: Member, *, tap: str) -> None:
    """Plug a network card into a running guest: that it is in no saved state lets every guest have its own MAC.

    Raises: GuestError, QmpError.
    """
    qemu = member.guest.qmp
    qemu.execute("netdev_add", type="tap", id="lan", ifname=tap, script="no", downscript="no")
    qemu.execute(
        "device_add", driver="virtio-net-pci", id="card", netdev="lan", bus="port1", mac=member.mac, romfile=""
    )
    member.guest.check(
        "until [ -e /sys/class/net/eth0 ]; do sleep 0.05; done;"
        f" ip addr add {member.address}/{PREFIX} dev eth0 && ip link set eth0 up",
        PLUG_SECONDS,
    )


def introduce(members: collections.abc.Sequence[Member]) -> None:
    """Write every host's name into every host, and wait until all reach the first."""
    known = "".join(f"{member.address} {member.name}\n" for member in members)
    for member in members:
        member.guest.check(
            f"cat >> /etc/hosts; until ping -c1 -W1 {members[0].address}; do :; done",
            PING_SECONDS,
            stdin=known.encode(),
        )
