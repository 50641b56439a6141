"""The in-memory host: the second implementation of the seam, with the same meaning of every effect as `host`.

It lets the planner, the loop and whole fleets run millions of passes, with a crash at any point, in virtual time. It
may import `model` and `errors` only, does no I/O, and is deterministic: pids, ids and digests are counted or derived.
The invariant: an effect that fails or succeeds on the real host fails or succeeds here, and leaves the same
observation. The contract test holds the two together; what a kernel was seen to do is written at the place that
imitates it. `world` is everything that happens to a host behind our back.

Turned down: mocks of the kernel room. They would test that calls are made, not what comes of them.
"""
