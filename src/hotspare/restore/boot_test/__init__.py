"""Tested restores: a restore point is started, apart from everything else, and looked at from all sides."""
