"""Hooks: scripts that quiesce the applications of a guest for the instant of a snapshot.

``hook.py`` says what a hook is; the folder ``guest`` holds what is sent into guests: ``runner``, which runs
hooks there and takes back what a dead backup left, and the ready hooks. docs/consistency.md has the protocol.
"""
