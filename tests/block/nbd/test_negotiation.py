"""Both halves of the negotiation against each other in memory, and each against arbitrary bytes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotspare.block.nbd import negotiation_client, protocol
from hotspare.block.nbd.negotiation_client import Negotiated, list_contexts, list_exports, negotiate
from hotspare.block.nbd.negotiation_server import Agreement, Offer, ServerNegotiation
from hotspare.block.nbd.protocol import (
    Exchange,
    NbdProtocolError,
    NbdRefusedError,
    Option,
    OptionReply,
    TransmissionFlag,
)
from tests.block.nbd.exchanges import StarvedError, feed

FLAGS = TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH
OFFERS = {
    "vda": Offer(1 << 40, FLAGS, ("base:allocation", "qemu:dirty-bitmap:vda"), 512, 4096, 1 << 20),
    "": Offer(512, FLAGS | TransmissionFlag.READ_ONLY, ("base:allocation",)),
}


def converse(client: Exchange[Any], server: Exchange[Any]) -> tuple[Any, Any]:
    """Let two exchanges talk until both have finished."""
    sides, results = [client, server], [None, None]
    inboxes, wanted, running = [bytearray(), bytearray()], [None, None], [True, True]
    progress = True
    while progress:
        progress = False
        for me in (0, 1):
            while running[me]:
                want: memoryview | None = wanted[me]
                if want is not None:
                    if len(inboxes[me]) < len(want):
                        break
                    want[:] = inboxes[me][: len(want)]
                    del inboxes[me][: len(want)]
                    wanted[me] = None
                progress = True
                try:
                    step: Any = next(sides[me])
                except StopIteration as finished:
                    results[me], running[me] = finished.value, False
                    break
                if isinstance(step, memoryview):
                    wanted[me] = step  # type: ignore[call-overload] # a list of None and views
                else:
                    inboxes[1 - me] += step
    assert running == [False, False]
    return results[0], results[1]


def test_both_halves_agree_on_an_export_and_its_contexts() -> None:
    contexts = ("base:allocation", "qemu:dirty-bitmap:vda", "qemu:dirty-bitmap:vdb")
    client, server = converse(negotiate("vda", contexts), ServerNegotiation(OFFERS).run())

    names = {1: "base:allocation", 2: "qemu:dirty-bitmap:vda"}
    assert client == Negotiated(1 << 40, FLAGS, True, names, 512, 4096, 1 << 20)
    assert server == Agreement("vda", True, names)


def test_both_halves_agree_without_contexts() -> None:
    client, server = converse(negotiate("", ()), ServerNegotiation(OFFERS).run())
    assert (client.size, client.structured, client.contexts) == (512, True, {})
    assert server == Agreement("", True, {})


def test_exports_and_contexts_are_listed() -> None:
    assert converse(list_exports(), ServerNegotiation(OFFERS).run()) == (["vda", ""], None)
    for queries, expected in (
        ((), ["base:allocation", "qemu:dirty-bitmap:vda"]),
        (("qemu:",), ["qemu:dirty-bitmap:vda"]),
        (("base:allocation", "other:"), ["base:allocation"]),
    ):
        told = converse(list_contexts("vda", queries), ServerNegotiation(OFFERS).run())
        assert told == (expected, None)


def test_an_unknown_export_is_refused_and_the_client_may_go_on() -> None:
    def stubborn() -> Exchange[int]:
        yield from negotiation_client.greet()
        try:
            yield from negotiation_client.ask(Option.GO, protocol.encode_text("vdz") + b"\0\0")
        except NbdRefusedError as refused:
            yield protocol.pack_option(Option.ABORT)
            return refused.error
        return 0

    assert converse(stubborn(), ServerNegotiation(OFFERS).run()) == (OptionReply.ERR_UNKNOWN, None)


@pytest.mark.parametrize(
    ("option", "payload", "expected"),
    [
        (Option.STARTTLS, b"", OptionReply.ERR_UNSUP),
        (Option.LIST, b"x", OptionReply.ERR_INVALID),
        (Option.STRUCTURED_REPLY, b"x", OptionReply.ERR_INVALID),
        (Option.GO, b"", OptionReply.ERR_INVALID),
        (Option.GO, b"\xff\xff\xff\xff", OptionReply.ERR_INVALID),
        (Option.INFO, b"\0\0\0\0\0\1", OptionReply.ERR_INVALID),
        (Option.INFO, b"\0\0\0\1\xff\0\0", OptionReply.ERR_INVALID),
        (Option.SET_META_CONTEXT, protocol.pack_contexts("vda", []), OptionReply.ERR_INVALID),
        (Option.LIST_META_CONTEXT, protocol.pack_contexts("vda", ["a"] * 65), OptionReply.ERR_INVALID),
        (Option.LIST_META_CONTEXT, protocol.pack_contexts("vda", []) + b"x", OptionReply.ERR_INVALID),
    ],
)
def test_options_that_make_no_sense_are_answered(option: Option, payload: bytes, expected: int) -> None:
    def client() -> Exchange[int]:
        yield from negotiation_client.greet()
        with pytest.raises(NbdRefusedError) as caught:
            yield from negotiation_client.ask(option, payload)
        yield protocol.pack_option(Option.ABORT)
        return caught.value.error

    assert converse(client(), ServerNegotiation(OFFERS).run()) == (expected, None)


def test_the_oldest_way_to_choose_an_export() -> None:
    for flags, padding in ((1, protocol.EXPORT_NAME_PADDING), (3, 0)):
        request = protocol.CLIENT_FLAGS.pack(flags) + protocol.pack_option(Option.EXPORT_NAME, b"vda")
        agreement, sent = feed(ServerNegotiation(OFFERS).run(), request)
        assert agreement == Agreement("vda")
        assert sent[18:] == protocol.EXPORT_NAME_REPLY.pack(1 << 40, FLAGS) + bytes(padding)
    unknown = protocol.CLIENT_FLAGS.pack(1) + protocol.pack_option(Option.EXPORT_NAME, b"vdz")
    assert feed(ServerNegotiation(OFFERS).run(), unknown)[0] is None


@pytest.mark.parametrize("flags", [1, 3])
def test_a_client_falls_back_to_the_oldest_way(flags: int) -> None:
    refusals = [
        protocol.pack_option_reply(option, OptionReply.ERR_UNSUP)
        for option in (Option.STRUCTURED_REPLY, Option.GO)
    ]
    greeting = protocol.GREETING.pack(protocol.GREETING_MAGIC, protocol.OPTION_MAGIC, flags)
    export = protocol.EXPORT_NAME_REPLY.pack(1 << 30, FLAGS) + bytes(0 if flags == 3 else 124)
    agreed, _sent = feed(negotiate("vda", ("base:allocation",)), greeting + b"".join(refusals) + export)
    assert agreed == Negotiated(1 << 30, FLAGS)


GREETING = protocol.GREETING.pack(protocol.GREETING_MAGIC, protocol.OPTION_MAGIC, 3)
OPTION_REPLIES = st.builds(
    protocol.pack_option_reply,
    st.sampled_from([*Option, 99]),
    st.sampled_from([*OptionReply, 77, 1 << 31]),
    st.one_of(
        st.binary(max_size=40),
        st.builds(protocol.INFO_EXPORT.pack, st.just(0), st.integers(0, 2**64 - 1), st.integers(0, 65535)),
        st.builds(
            protocol.INFO_BLOCK_SIZE.pack, st.just(3), *[st.sampled_from([0, 1, 3, 512, 2**32 - 1])] * 3
        ),
        st.builds(lambda name: b"\0\0\0\1" + name, st.binary(max_size=20)),
    ),
)
LIKELY_REPLIES = st.tuples(
    st.sampled_from([Option.STRUCTURED_REPLY]).map(lambda o: protocol.pack_option_reply(o, OptionReply.ACK)),
    st.lists(OPTION_REPLIES, max_size=8).map(b"".join),
).map(b"".join)


@given(
    st.one_of(
        st.binary(max_size=300), LIKELY_REPLIES.map(GREETING.__add__), st.binary().map(GREETING.__add__)
    )
)
def test_a_client_survives_any_server_while_negotiating(received: bytes) -> None:
    try:
        agreed, _sent = feed(negotiate("vda", ("base:allocation",)), received)
    except (NbdProtocolError, NbdRefusedError, StarvedError):
        return
    assert 0 <= agreed.size < 1 << 63
    assert 1 <= agreed.minimum_block <= agreed.maximum_block


OPTIONS = st.builds(
    protocol.pack_option,
    st.sampled_from([*Option, 99]),
    st.one_of(
        st.binary(max_size=40),
        st.just(b""),
        st.builds(
            protocol.pack_contexts,
            st.sampled_from(["vda", "", "no"]),
            st.lists(st.sampled_from(["base:allocation", "qemu:", "ü"]), max_size=3),
        ),
    ),
)


@given(
    st.one_of(
        st.binary(max_size=300), st.lists(OPTIONS, max_size=10).map(lambda o: b"\0\0\0\3" + b"".join(o))
    )
)
def test_a_server_survives_any_client_while_negotiating(received: bytes) -> None:
    try:
        agreement, _sent = feed(ServerNegotiation(OFFERS).run(), received)
    except (NbdProtocolError, StarvedError):
        return
    assert agreement is None or set(agreement.contexts.values()) <= set(OFFERS[agreement.export].contexts)


def test_endless_conversations_are_ended() -> None:
    listing = protocol.CLIENT_FLAGS.pack(3) + protocol.pack_option(Option.LIST) * 2000
    with pytest.raises(NbdProtocolError, match="options"):
        feed(ServerNegotiation(OFFERS).run(), listing)
    names = protocol.pack_option_reply(Option.LIST, OptionReply.SERVER, protocol.encode_text("x")) * 5000
    with pytest.raises(NbdProtocolError, match="replies"):
        feed(list_exports(), GREETING + names)
