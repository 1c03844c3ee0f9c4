"""Where machines live, and what speaks to it.

``platform.py`` is the contract that the engines use; each package below is one platform, with the
same file names in each; ``registry.py`` chooses by URI. Adding a platform is adding a package.
"""
