"""Incus: what its commands print as YAML, of instances, profiles, networks and volumes.

Source: Incus's documentation, reference/instance_options, reference/devices, reference/network_bridge.
"""
