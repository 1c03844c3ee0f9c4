"""The agent of the micro-VM in a thread of the test, with a folder of this host for a mounted volume."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hotspare.errors import HotspareError
from hotspare.guest.files.appliance.channel import Channel
from hotspare.guest.files.appliance.inside.agent import Agent, Port, serve
from hotspare.guest.files.appliance.inside.volumes import Volume
from hotspare.guest.files.appliance.inside.wire import WINDOW_SIZE
from hotspare.guest.files.appliance.mounted import MountedFiles


def no_cause() -> HotspareError | None:
    return None


@contextmanager
def agent_on(folder: Path, scratch: Path) -> Iterator[MountedFiles]:
    """Give the files of a folder by way of the agent."""
    window = new_window(scratch)
    ours, theirs = socket.socketpair()
    agent = Agent()
    agent.window = os.open(window, os.O_RDWR)
    agent.volumes[1] = Volume(os.fsencode(folder), "folder")
    thread = threading.Thread(target=serve, args=(Port(theirs.fileno()), agent))
    thread.start()
    channel = Channel(ours, window, str, 20)
    try:
        yield MountedFiles(channel, 1, "folder", "vda1", no_cause)
    finally:
        channel.close()
        thread.join(60)
        theirs.close()
        os.close(agent.window)
        if 1 in agent.volumes:
            agent.volumes[1].close()
        agent.buffer.close()
        assert not thread.is_alive()


def new_window(folder: Path) -> Path:
    window = folder / "window"
    with window.open("wb") as file:
        file.truncate(WINDOW_SIZE)
    return window


@contextmanager
def scripted_agent(scratch: Path, answers: list[bytes], *, seconds: float = 20) -> Iterator[Channel]:
    """Give a channel to somebody who answers whatever was asked with given bytes, and then hangs up."""
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def answer() -> None:
        with theirs:
            for content in answers:
                if not theirs.recv(65536):
                    return
                theirs.sendall(content)
            if not answers:
                stop.wait(20)

    thread = threading.Thread(target=answer)
    thread.start()
    channel = Channel(ours, new_window(scratch), lambda: "Kernel panic", seconds)
    try:
        yield channel
    finally:
        channel.close()
        stop.set()
        thread.join(60)
