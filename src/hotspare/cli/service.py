"""Talking to the service manager: see sd_notify(3) and systemd.exec(5)."""

import os
import socket


def notify(state: str) -> None:
    """Tell systemd how the service is: ``READY=1``, ``STOPPING=1``, ``STATUS=...``; nothing without it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    # An abstract socket is written with an @.
    name = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        connection.connect(name)
        connection.sendall(state.encode())
