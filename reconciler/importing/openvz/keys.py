"""Keys that no field stands for: what they meant, and why they are left out."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.importing.openvz import compute, disk, life, memory, network

CONVERTED = memory.KEYS | compute.KEYS | disk.KEYS | network.KEYS | life.KEYS | {"OSTEMPLATE"}
"""Keys for which fields stand."""

_NO_FIELD = "there is no field for it"
_OLD = "a name of Linux 2.4: write what it stood for as a beancounter"
_OWN_KERNEL = "the kernel has no such limit"
_HOST = "the host's own affair"
_NOT_KEPT = "what OpenVZ keeps for itself"

LOST: Mapping[str, str] = {
    **dict.fromkeys(("TOTVMPAGES", "IPCSHMPAGES", "ANONSHPAGES", "RSSPAGES", "OOMGUAR"), _OLD),
    **dict.fromkeys(("NUMSOCK", "UNIXSOCKBUF", "SOCKRCVBUF", "NUMUNIXSOCK"), _OLD),
    "NUMNETIF": _OWN_KERNEL,
    "NUMMEMORYSUBGROUPS": _NO_FIELD,
    "CPUWEIGHT": "a weight of another scheduler: write cpu.weight",
    "CPUUWEIGHT": "a weight of another scheduler: write cpu.weight",
    "CPULIMIT_MHZ": "a clock rate depends on the host: write the number of CPUs as cpu.limit",
    "BURST_CPULIMIT": "a limit holds at all times",
    "BURST_CPU_AVG_USAGE": "a limit holds at all times",
    "MOUNT_OPTS": _NO_FIELD,
    "NOATIME": _NO_FIELD,
    "TEMPLATES": "applications come with the files of the VE",
    "DISTRIBUTION": "vectl tells distributions apart by nothing but their files",
    "OSRELEASE": "a VE sees the release of the kernel that runs",
    "EXT_IP_ADDRESS": "addresses outside of the VE: declare forwards of its network",
    "NETFILTER": "a VE may filter packets in its own network, with the modules that the host has loaded",
    "IPTABLES": "a VE may filter packets in its own network, with the modules that the host has loaded",
    "TOTALRATE": "rates are declared by interface",
    "PCI": "devices are declared by their files, and network interfaces by their names",
    "VE_ENVIRONMENT": "an init that boots a system makes its own environment",
    "AUTOSTOP": "a VE is stopped with the host, or suspended by `power: suspended`",
    "HA_ENABLE": "which host takes over is decided by who runs the fleet",
    "HA_PRIO": "which host takes over is decided by who runs the fleet",
    "MEMINFO": "a VE sees its own limits in /proc/meminfo",
    "VE_TYPE": _NO_FIELD,
    "IPV6": "a VE has IPv6 as soon as it has an address of it",
}
"""Keys with which something may be lost."""

NEEDLESS: Mapping[str, str] = {
    "PAGECACHE_ISOLATION": "what a VE reads counts as its own memory anyway",
    "AVNUMPROC": "a value for planning, which limits nothing",
    "JOURNALED_QUOTA": "quotas are always kept in a journal",
    "ROOT_DISK": "a VE always has a disk of its own",
    "AUTOCOMPACT": "a volume takes what is in it",
    "VE_ROOT": "vectl mounts a VE where nobody else looks",
    "TEMPLATE": "vectl keeps templates by their content",
    "USE_VENET_MASK": "an address of a routed network is by itself",
    "VETH": "it has been obsolete for long; NETIF says it",
    "USE_NET_RPS": _HOST,
    "TECHNOLOGIES": _NOT_KEPT,
    "LOCAL_UID": "every VE has a range of ids of its own; `vectl import --rootfs` takes it as --id-base",
    "LOCAL_GID": "every VE has a range of ids of its own; `vectl import --rootfs` takes it as --id-base",
    **dict.fromkeys(("VEID", "CONFIG_CUSTOMIZED", "VERSION", "PLATFORM", "APPLY_IPONLY"), _NOT_KEPT),
}
"""Keys with which nothing is lost."""

HOST: frozenset[str] = frozenset(
    {"VIRTUOZZO", "LOCKDIR", "DUMPDIR", "VE0CPUUNITS", "LOGGING", "LOGFILE", "LOG_LEVEL", "VERBOSE", "VZFASTBOOT"}
    | {"MODULES_DISABLED", "IPTABLES_MODULES", "IP6TABLES", "VE_STOP_MODE", "VE_PARALLEL", "SKIP_SYSCTL_SETUP"}
    | {"VE_ROUTE_SRC_DEV", "NEIGHBOUR_DEVS", "ERROR_ON_ARPFAIL", "SKIP_ARPDETECT", "DEF_OSTEMPLATE", "CONFIGFILE"}
    | {"VZWDOG", "BANDWIDTH", "VE_LAYOUT", "TEMPLATE", "IPV6"}
)
"""Keys of the global configuration that are about the host, or about containers that are still to be made."""

HOST_WHY = _HOST
