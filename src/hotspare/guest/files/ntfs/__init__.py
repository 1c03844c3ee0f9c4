"""NTFS, read by libfsntfs in a process of its own.

libfsntfs is C, and a disk may be made to harm it: ``worker.py`` is that process, with nothing to lose, and
``isolated.py`` speaks to it.
"""
