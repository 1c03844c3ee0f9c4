"""One disk's bytes: what an extent is, who reads and writes blocks, and how to copy them in parallel.

Above it, platforms hand out readers, the repository is read as one, and restore writes through
writers. Below it there is nothing but files, sockets and QEMU's tools.
"""
