"""Importers: the configurations of other systems as drafts of manifests, with an account of every key.

Everything here is pure: texts go in, manifests and a report come out. What is read was written elsewhere, so nothing in
it is evaluated, and whatever it says, the result is valid or the import is refused.
"""
