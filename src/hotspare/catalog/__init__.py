"""What this host remembers in SQLite: a cache of restore points, and the history of runs.

The repository is the truth about restore points; every row of them here can be fetched from it again.
Only the history of runs exists nowhere else, and nothing but ``hotspare run list`` and the state
column of ``hotspare machine list`` depends on it. The catalog knows plain rows, no repository.
"""
