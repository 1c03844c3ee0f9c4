"""NBD, the network block device protocol: the messages without any I/O, a client and a server.

``protocol``, ``negotiation_client``, ``negotiation_server``, ``replies`` and ``requests`` know the bytes and
no sockets; ``connection`` moves the bytes; ``client`` and ``server`` are what the rest of Hotspare uses;
``extents`` reads a dirty bitmap beside the allocation map.

Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""
