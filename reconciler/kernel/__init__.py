"""Thin primitives: one small function per system call, kernel file, netlink message or command, with its parser.

The only room with subprocess, ctypes, sockets to the kernel and setns. It knows nothing of manifests, diffs or
plans, never retries, never logs, and imports nothing of ours but `errors`. Each failure of the kernel or of a tool
becomes one of our exceptions here, once.
"""
