"""The command line: one file per noun, thin over the engines.

``main.py`` is where a command begins and ends, ``app.py`` the list of nouns. A noun's file is imported
only when that noun is used, so that help and completion stay quick. What a command needs (settings,
repository, platform, catalog) comes from ``session.py``; what it says goes through ``output.py``
(results, on stdout) and ``progress.py`` (the way there, on stderr).
"""
