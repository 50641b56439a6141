"""Proxmox VE: the configurations of its containers, ``/etc/pve/lxc/ID.conf``.

Source: pct.conf(5).
"""
