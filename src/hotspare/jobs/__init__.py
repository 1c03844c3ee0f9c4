"""Runs that survive the process that carries them out: queues, heartbeats, taking over, who is next.

The only folder that knows DBOS, which keeps the queues and what has been done of each run in SQLite or
PostgreSQL. What a run does is told from outside (``work.py``): this folder opens no repository.
"""
