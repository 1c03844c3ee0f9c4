"""Frames, however they are cut up on their way, and what is not of the protocol."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.errors import NoSpace
from hotspare.storage.backend import ObjectInfo
from hotspare.storage.served.frames import HEADER_MAX, Frame, ProtocolError, encode_head
from hotspare.storage.served.protocol import (
    MAGIC,
    PIECE_MAX,
    AskSpace,
    Delete,
    Done,
    Failed,
    Get,
    Hello,
    List,
    Message,
    Piece,
    Put,
    Size,
    SpaceLeft,
    Welcome,
    decode_listing,
    encode_listing,
    failure,
    frame_decoder,
)

names = st.text("abcdef0123456789/-", min_size=1, max_size=60)
numbers = st.integers(0, 2**63)
messages = st.one_of(
    st.builds(Hello, numbers, st.text(max_size=20), st.text(max_size=50)),
    st.builds(Put, numbers, names, numbers, st.lists(st.binary(max_size=32), max_size=3).map(tuple)),
    st.builds(Get, numbers, names, numbers, st.none() | numbers),
    st.builds(Size, numbers, names),
    st.builds(List, numbers, names),
    st.builds(Delete, numbers, names),
    st.builds(Piece, numbers),
    st.builds(AskSpace, numbers),
    st.builds(SpaceLeft, numbers, numbers, numbers),
    st.builds(Done, numbers, numbers),
)
frames = st.lists(st.tuples(messages, st.binary(max_size=2000)), max_size=8)


@given(frames, st.lists(st.integers(1, 700), min_size=1, max_size=20))
def test_frames_survive_being_cut_up(sent: list[tuple[Message, bytes]], cuts: list[int]) -> None:
    stream = MAGIC + b"".join(encode_head(message, len(body)) + body for message, body in sent)
    decoder = frame_decoder()
    came: list[Frame[Message]] = []
    at = number = 0
    while at < len(stream):
        length = cuts[number % len(cuts)]
        came += decoder.feed(stream[at : at + length])
        at, number = at + length, number + 1

    assert [(frame.message, frame.body) for frame in came] == sent
    assert not decoder.in_frame


@given(st.binary(max_size=5000))
def test_noise_is_refused_or_waited_for_and_never_held_without_bound(noise: bytes) -> None:
    decoder = frame_decoder()
    try:
        for _ in decoder.feed(MAGIC + noise):
            pass
    except ProtocolError:
        return
    assert decoder.in_frame or not noise


@pytest.mark.parametrize(
    "said",
    [b"Welcome to Debian!\n", b"HSSERV\x00\x02", b"\x00"],
)
def test_a_greeting_of_something_else_is_told_at_once(said: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(frame_decoder().feed(said))


@pytest.mark.parametrize(("header", "body"), [(HEADER_MAX + 1, 0), (10, PIECE_MAX + 1)])
def test_a_frame_that_is_too_long_is_refused_before_it_is_there(header: int, body: int) -> None:
    with pytest.raises(ProtocolError, match="a frame of"):
        list(frame_decoder().feed(MAGIC + header.to_bytes(2, "big") + body.to_bytes(4, "big")))


def test_listings_and_errors_come_back_as_they_were() -> None:
    objects = [ObjectInfo("data/aa/1", 5), ObjectInfo("points/x", 0)]
    assert decode_listing(encode_listing(objects)) == objects
    with pytest.raises(ProtocolError):
        decode_listing(b"\xc1")

    said = failure(7, NoSpace("full", meaning="nothing stored", hint="x" * 9000))
    assert said == Failed(7, "no-space", "full", "nothing stored", "x" * 2000, may_pass=False)
    assert len(encode_head(said)) < HEADER_MAX


def test_a_server_that_offers_nothing_more_greets_as_it_always_did() -> None:
    """Programs of before and after a server could tell its space understand each other."""
    old = msgspec.msgpack.encode(["welcome", 1, "0.9", "full", "fsync", ""])
    new = msgspec.msgpack.encode(Welcome(1, "1.0", "full", "fsync", "", offers=("space",)))
    read = msgspec.msgpack.Decoder(Welcome).decode(old)
    assert (read.program, read.offers) == ("0.9", ())

    class Before(msgspec.Struct, frozen=True, array_like=True, tag="welcome"):
        version: int
        program: str
        access: str
        durability: str
        own_prefix: str

    assert msgspec.msgpack.Decoder(Before).decode(new) == Before(1, "1.0", "full", "fsync", "")
