"""Manifests: the guarded YAML front door, the pydantic models of every kind, the checks between documents, the schema.

May import `model`, `errors` and pydantic, which stays here: what leaves this room are the frozen values of
`model.fleet`. One invariant: no content of a file raises. Whatever is wrong with it becomes a `Finding` that names
file, line, column, field and remedy, and all findings of all files are told at once. Everything here is a pure
function of the files' bytes, so that every host judges a revision alike.

Turned down: loading with a YAML library's own constructors and walking their objects. They know tags, anchors, merge
keys and YAML 1.1's idea of ``yes`` and ``010``; here the parser's events are all that is used of a library.
"""
