"""From a platform into a repository: plan, freeze, transfer, commit.

``machine.py`` tells the story of one machine's run; ``plan.py`` decides which chunks of a disk are read;
``transfer.py`` moves them.
"""
