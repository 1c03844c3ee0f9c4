"""How agents speak to each other, and how the command line speaks to its agent.

``tls.py`` is who is who, ``wire.py`` what goes over a connection, ``server.py`` and ``client.py`` its ends.
"""
