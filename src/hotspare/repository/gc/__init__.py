"""Collecting garbage while others write: marking, condemning, waiting, copying, deleting.

``collect.py`` holds the order of the steps, which is what makes it safe; docs/repository-format.md,
"Collecting garbage", tells why. Nothing here takes a lock or trusts a clock.
"""
