"""Checks that no single field can make: within a VE, between a VE and its networks, and across the fleet.

Each is a function that gives complaints and changes nothing; all of them run, whatever the others found.
"""
