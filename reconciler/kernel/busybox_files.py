"""The files of the built-in template, beside the one program: directories, links, and texts with their modes."""

from __future__ import annotations

from collections.abc import Mapping

# What the runtime mounts over: proc, sys, dev, run, tmp. /bin, /sbin are links, as Debian has them.
DIRECTORIES: Mapping[str, int] = {
    "": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "etc/init.d": 0o755,
    "home": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "srv": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "usr/lib": 0o755,
    "usr/local": 0o755,
    "usr/local/bin": 0o755,
    "usr/local/sbin": 0o755,
    "usr/sbin": 0o755,
    "usr/share": 0o755,
    "var": 0o755,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/log": 0o755,
    "var/spool": 0o755,
    "var/spool/cron": 0o755,
    "var/spool/cron/crontabs": 0o700,
    "var/tmp": 0o1777,
    "www": 0o755,
}

LINKS: Mapping[str, str] = {
    "bin": "usr/bin",
    "sbin": "usr/sbin",
    "lib": "usr/lib",
    "var/run": "/run",
    "etc/mtab": "/proc/self/mounts",
}

_INITTAB = """\
::sysinit:/etc/init.d/rcS
::respawn:/sbin/syslogd -n -O /var/log/messages
::respawn:/usr/sbin/crond -f
::respawn:/usr/sbin/httpd -f -p 80 -u www-data -h /www
::ctrlaltdel:/sbin/poweroff
"""

_RCS = """\
#!/bin/sh
# Runs once at boot, before the services of /etc/inittab: each /etc/init.d/S* with the word "start".
for script in /etc/init.d/S*; do
    [ -x "$script" ] && "$script" start
done
"""

# Nothing is flushed: sync(2) would wait for the disks of the whole machine, which goes on running.
_SHUTDOWN = """\
#!/bin/sh
# Ends the system in order: no service is started again, every process is asked to end and waited for, at most five
# seconds, then the kernel is told. With any option it is busybox's own command; "busybox poweroff" is it as well, and
# takes two seconds of sleep.
command=${0##*/}
[ $# -gt 0 ] && exec busybox "$command" "$@"

others_run() {
    for stat in /proc/[0-9]*/stat; do
        read -r line 2>/dev/null <"$stat" || continue
        pid=${line%% *}
        rest=${line##*) }
        [ "$pid" = 1 ] || [ "$pid" = $$ ] || [ "${rest%% *}" = Z ] || return 0
    done
    return 1
}

trap '' HUP INT TERM
kill -s TSTP 1      # init starts nothing again
kill -s TERM -1
kill -s HUP -1      # an interactive shell heeds only this
kill -s CONT -1
left=250
while others_run && [ $left -gt 0 ]; do
    sleep 0.02
    left=$((left - 1))
done
exec busybox "$command" -n -f
"""

# BusyBox's own free and uptime ask sysinfo(2), which tells of the host's memory and boot; /proc tells of the VE's.
_FREE = """\
#!/bin/sh
# Shows memory and swap from /proc/meminfo, in KiB or by -b, -m, -g; "busybox free" shows the host's.
case ${1:--k} in
-b) times=1024 ;;
-k) times=1 ;;
-m) times=0.0009765625 ;;
-g) times=0.00000095367431640625 ;;
*) echo "usage: free [-b|-k|-m|-g]" >&2; exit 1 ;;
esac
exec awk -v times=$times '
{ kib[$1] = $2 }
function column(size) { return sprintf("%12.0f", int(size * times)) }
function row(name, total, used, free) { printf "%-10s%s%s%s", name, column(total), column(used), column(free) }
END {
    total = kib["MemTotal:"]
    free = kib["MemFree:"]
    cache = kib["Buffers:"] + kib["Cached:"] + kib["SReclaimable:"]
    printf "%22s%12s%12s%12s%12s%12s\\n", "total", "used", "free", "shared", "buff/cache", "available"
    row("Mem:", total, total - free - cache, free)
    printf "%s%s%s\\n", column(kib["Shmem:"]), column(cache), column(kib["MemAvailable:"])
    row("Swap:", kib["SwapTotal:"], kib["SwapTotal:"] - kib["SwapFree:"], kib["SwapFree:"])
    printf "\\n"
}' /proc/meminfo
"""

_UPTIME = """\
#!/bin/sh
# Shows how long this system is up and how busy it was, from /proc; "busybox uptime" shows the host's.
read -r seconds idle </proc/uptime
read -r one five fifteen rest </proc/loadavg
minutes=$((${seconds%%.*} / 60))
days=$((minutes / 1440))
[ $days -gt 0 ] && since="$days days, "
printf ' %s up %s%d:%02d,  load average: %s, %s, %s\\n' "$(date +%T)" "${since:-}" \\
    $((minutes / 60 % 24)) $((minutes % 60)) "$one" "$five" "$fifteen"
"""

_USERS = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
www-data:x:33:33:www-data:/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/:/usr/sbin/nologin
"""

_GROUPS = """\
root:x:0:
daemon:x:1:
tty:x:5:
www-data:x:33:
shadow:x:42:
users:x:100:
nogroup:x:65534:
"""

_NO_LOGINS = """\
root:*:19000:0:99999:7:::
daemon:*:19000:0:99999:7:::
www-data:*:19000:0:99999:7:::
nobody:*:19000:0:99999:7:::
"""

# In an interactive shell: it would take its own applets of these names, and then su has no set-user-id bit, and free
# tells of the host.
_PROFILE = """\
alias halt=/sbin/halt poweroff=/sbin/poweroff reboot=/sbin/reboot su=/usr/bin/su
alias free=/usr/bin/free uptime=/usr/bin/uptime
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PS1='\\u@\\h:\\w\\$ '
umask 022
"""

FILES: Mapping[str, tuple[int, str]] = {
    "etc/group": (0o644, _GROUPS),
    "etc/hostname": (0o644, "localhost\n"),
    "etc/hosts": (0o644, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    "etc/init.d/rcS": (0o755, _RCS),
    "etc/inittab": (0o644, _INITTAB),
    "etc/os-release": (0o644, 'ID=busybox\nNAME="BusyBox"\nPRETTY_NAME="BusyBox"\n'),
    "etc/passwd": (0o644, _USERS),
    "etc/profile": (0o644, _PROFILE),
    "etc/resolv.conf": (0o644, ""),
    "etc/shadow": (0o600, _NO_LOGINS),
    "etc/shells": (0o644, "/bin/sh\n"),
    "usr/bin/free": (0o755, _FREE),
    "usr/bin/uptime": (0o755, _UPTIME),
    "usr/sbin/halt": (0o755, _SHUTDOWN),
    "usr/sbin/poweroff": (0o755, _SHUTDOWN),
    "usr/sbin/reboot": (0o755, _SHUTDOWN),
    "var/spool/cron/crontabs/root": (0o600, "17 4 * * * mv -f /var/log/messages /var/log/messages.0\n"),
    "www/index.html": (0o644, "<!doctype html>\n<title>It works</title>\n<p>It works.\n"),
}
