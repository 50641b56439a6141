"""The keeper: one small process per instance that is the parent of every VE's init and outlives the agent.

Only a parent's wait(2) tells a reboot from a halt, and an exec that nobody reaps keeps a VE from dying or being
dumped. So one process, which does nothing else, starts what makes or restores a VE and what is executed in one, reaps
all of it at once, and writes down how each init ended. It knows no manifests, decides nothing and holds no state that
its files do not have: if it dies the VEs live on, and an end that it did not see is of unknown cause.

It stays small on purpose: no asyncio, no subprocess, one thread, children that it forks and never waits for.
"""
