"""The server's HTTP interface: everything below ``/api/v1``, for the program itself, scripts and monitoring.

``routes.py`` is the table of all routes and of who may call them; ``guard.py`` holds every one of them to it.
"""
