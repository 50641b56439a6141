"""Where manifests come from: a look at a source gives a snapshot, a settled and valid one becomes the revision.

May import `manifests`, `kernel`, `model` and `errors`. One invariant: what could not be read completely is a problem
with a name, never a revision with less in it; only a complete look says that something is gone, and only one that
held for a while removes it.

Turned down: acting on what inotify reports. It loses events on overflow and goes silent when the directory is
replaced, so it may only say that it is worth looking, and a look that finds nothing new costs milliseconds.
"""
