"""The loop: what wakes it, whose turn it is, how long to wait after a failure, and what people are told.

May import everything below. Single-threaded in logic: everything here runs on one event loop, so that a deterministic
loop with virtual time can run the same code on the twin. One invariant: an event carries no facts; it names a VE, and
the pass that follows observes anew.
"""
