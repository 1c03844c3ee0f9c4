"""What is protected, when, how and for how long: pure functions on values, no files, clocks or networks.

``policy.py`` has the definition that users write and ``document.py`` reads it from YAML. Whoever asks brings
the time and the facts (machines, points, samples of load), so that everything here can be tried out and
tested without waiting.
"""
