"""Bringing a machine up on its standby, for good or to try it, and bringing it home again."""
