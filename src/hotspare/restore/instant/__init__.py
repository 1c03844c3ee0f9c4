"""Instant recovery: machines that run straight from a restore point, and move off it while they run."""
