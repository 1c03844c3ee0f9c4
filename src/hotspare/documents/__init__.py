"""The parts of JSON documents: the same from commands and from the server.

docs/json-output.md and docs/api.md describe them. A field is never renamed or removed without a higher
``v``; programs must put up with fields that are added.
"""
