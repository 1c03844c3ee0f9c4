"""What the source host does so that each write of a guest is on the standby before it counts as done.

``monitor.py`` speaks to the guest's QEMU, ``mirror.py`` has it write to both places, ``resync.py`` catches up
after a break, and ``watchdog.py`` notices that the standby is silent.
"""
