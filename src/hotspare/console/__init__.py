"""The web console: pages for people, made on the server from what the HTTP interface's handlers answer.

A table of pages (``pages.py``) with a guard before each, as ``api/`` has it for routes. A page never decides
by itself what somebody may see: it asks the handler of the same route, and shows that document.
"""
