"""The real host behind the seam: one module for each facet, each with its observation and its effects.

May import `kernel`, `model` and `errors`. Two invariants: what carries no mark of ours is never changed, and what
could not be read is `Unknown`, never absent. It knows nothing of plans: it does what an effect says, reads back that
it is so, and decides nothing.
"""
