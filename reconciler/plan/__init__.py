"""Diff, planner, plan checks, impact and rendering: every decision, and nothing else.

May import `model` and `errors`; no I/O, no clock, no randomness, no logging. One invariant: a plan leaves no choice
to whoever applies it, and equal inputs give an equal plan. Each facet declares its fields here, once, with the impact
of a change; the diff, the published field table and `vectl explain` are made from that declaration.

Turned down: a generic difference library as the judge. It is slow on equal values, and it cannot know that a list of
interfaces is a map by name. Canonical values and ``==`` decide; deepdiff explains to people.
"""
