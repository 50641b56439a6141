"""Perform a plan through the seam: in order, read back, and no further for a VE that surprised us.

May import `plan`, `model`, `errors` and the two hosts' protocols. One invariant: it decides nothing. Every effect it
performs is in the plan that it was given, in the order in which it stands there.
"""
