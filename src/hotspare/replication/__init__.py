"""A machine's disks kept on a second host as well, so that it can go on there.

``agent.py`` is the program that runs on every host; ``model.py`` has the words. Of a protected machine, the
*source* is the host that runs it and the *standby* the one that keeps its *replica*.
"""
