"""The main job, shown on a real virtual machine: ``make demo``."""
