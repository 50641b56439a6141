"""The command line: arguments, tables and exit codes. No decisions: those are in the rooms below.

Nothing heavy is imported before a command needs it: `--version`, `--help` and completion stay quick.
"""
