"""A Debian 13 host in QEMU: cgroup v2 alone, a stock kernel and systemd, to run the other tests on."""
