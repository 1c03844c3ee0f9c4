"""Finding what differs between two disks on two hosts, and making the second like the first.

``digests.py`` says what a run of bytes is like; ``bring_alike.py`` sends what differs.
"""
