"""What an instance remembers on disk: configuration, inventory, journal, pauses, consents, history, the last good.

May import `host`, `kernel`, `model` and `errors`. Everything is synchronous and small, takes the time of day as an
argument, and lies below the instance's state directory (what a reboot may forget: below its run directory). One
invariant: a file is replaced whole, by a temporary file, fsync and rename, and carries a format number; a file that is
damaged or of a format not known is a StateError with its remedy, never read as empty.

Turned down: SQLite. It would put one file between vectl and every other piece of state; these files are few, have one
writer at a time, can be read and mended with an editor, and one that is damaged takes none of the others with it.
"""
