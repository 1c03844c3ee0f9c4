"""Files of tests that take a process longest, the longest first: ``make test`` begins with them.

What is missing here begins at random. ``make test`` lists the longest tests at its end; renew this from that
when a run ends with one process at work.
"""

LONG_FILES = ("cli/test_boot_test.py",)
