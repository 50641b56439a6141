"""Frozen values: specs, observations, actions, effects, conditions, units, and the protocols of the seam.

May import nothing of ours but `errors`, and no I/O of any kind. One invariant: a value here never changes after it
is made, so that it may be compared with ``==``, kept, journalled and replayed. A facet of a VE (power, compute,
volume, network, ...) has one module here with its spec, its observation and its effects, and a module of the same
name in `plan`, `host` and `twin`.

Turned down: pydantic models all the way through. They carry validation, coercion and a slow constructor to places
where the value is known to be good, and they would tie the planner to a library.
"""
