"""Measures Hotspare against other backup programs, on this host and on the same data: ``make bench``."""
