"""Partitions and logical volumes, and what each of them holds."""
