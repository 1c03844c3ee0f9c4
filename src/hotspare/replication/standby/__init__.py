"""What the standby host keeps: of each machine a replica, whose disks are chains of images.

``replica.py`` is one machine's; ``storage_daemon.py`` the program that serves its disks; ``chain.py`` what
becomes of images when points are made and removed.
"""
