"""Hotspare's own memory in the repository, and a control plane made of it again.

A self-backup is a restore point like any other, of a machine that is Hotspare itself: so retention, locks,
checks, copies and the collector of garbage treat it as they treat all others, in every version.
"""
