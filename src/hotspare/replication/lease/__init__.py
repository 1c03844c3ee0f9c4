"""Who may run a machine: never two hosts at once. ``lease.py`` has the rules, without any input or output."""
