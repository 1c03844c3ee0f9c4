"""The client's half of fixed-newstyle negotiation, without I/O.

Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, section "Handshake phase".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hotspare.block.nbd import protocol
from hotspare.block.nbd.protocol import (
    Exchange,
    HandshakeFlag,
    Info,
    NbdProtocolError,
    NbdRefusedError,
    Option,
    OptionReply,
    TransmissionFlag,
    receive,
)

MAX_SIZE = 1 << 63
"""Offsets are signed 64-bit numbers on the hosts that we serve."""


@dataclass(slots=True)
class Negotiated:
    """What a client and a server agreed on.

    ``contexts`` maps the number of a meta context to its name. Block sizes are bytes; where the server
    says nothing they are the defaults of the specification (section "Block size constraints").
    """

    size: int = 0
    flags: TransmissionFlag = field(default_factory=lambda: TransmissionFlag(0))
    structured: bool = False
    contexts: dict[int, str] = field(default_factory=dict)
    minimum_block: int = 1
    preferred_block: int = 4096
    maximum_block: int = protocol.MAX_PAYLOAD


def greet() -> Exchange[bool]:
    """Answer the server's greeting; return whether both sides leave out the padding zeroes.

    STARTTLS belongs right after this, before any other option.

    Raises:
        NbdProtocolError: the peer is no NBD server, or one from before fixed-newstyle negotiation.
    """
    magic, option_magic, raw_flags = protocol.GREETING.unpack((yield from receive(protocol.GREETING.size)))
    if magic != protocol.GREETING_MAGIC:
        raise NbdProtocolError("the greeting is not that of an NBD server")
    flags = HandshakeFlag(raw_flags & 3)
    if option_magic != protocol.OPTION_MAGIC or HandshakeFlag.FIXED_NEWSTYLE not in flags:
        raise NbdProtocolError("the server does not know fixed-newstyle negotiation")
    yield protocol.CLIENT_FLAGS.pack(flags)
    return HandshakeFlag.NO_ZEROES in flags


def start_tls() -> Exchange[bool]:
    """Greet, and agree on TLS, which has to follow at once; return what ``greet`` does.

    Raises:
        NbdRefusedError: the server has no TLS.
        NbdProtocolError: the peer is no such NBD server.
    """
    no_zeroes = yield from greet()
    yield from ask(Option.STARTTLS)
    return no_zeroes


def negotiate(export: str, contexts: Sequence[str], no_zeroes: bool | None = None) -> Exchange[Negotiated]:
    """Go from the greeting to the transmission phase of ``export``.

    Asks for structured replies, then for the meta contexts (which need them), then for the export. Each
    is left out where the server does not have it.

    Args:
        export: its name.
        contexts: meta contexts that are wanted.
        no_zeroes: what ``start_tls`` gave; None when there was no greeting yet.

    Raises:
        NbdRefusedError: the server does not give us this export.
        NbdProtocolError: the server broke the protocol.
    """
    if no_zeroes is None:
        no_zeroes = yield from greet()
    agreed = Negotiated()
    try:
        yield from ask(Option.STRUCTURED_REPLY)
        agreed.structured = True
        if contexts:
            agreed.contexts = yield from _set_contexts(export, contexts)
    except NbdRefusedError as refused:
        if refused.error == OptionReply.ERR_TLS_REQD:
            raise
    try:
        yield from _go(export, agreed)
    except NbdRefusedError as refused:
        if refused.error != OptionReply.ERR_UNSUP:
            raise
        yield from _export_name(export, agreed, padded=not no_zeroes)
    if not 0 <= agreed.size < MAX_SIZE:
        raise NbdProtocolError(f"the export claims a size of {agreed.size} bytes")
    return agreed


def list_exports() -> Exchange[list[str]]:
    """Ask for the names of all exports (NBD_OPT_LIST) and end the session.

    Raises:
        NbdRefusedError: the server does not tell.
        NbdProtocolError: the server broke the protocol.
    """
    yield from greet()
    names = []
    for kind, payload in (yield from ask(Option.LIST)):
        if kind != OptionReply.SERVER or len(payload) < 4:
            raise NbdProtocolError("a malformed answer to NBD_OPT_LIST")
        length = protocol.U32.unpack_from(payload)[0]
        if length > len(payload) - 4:
            raise NbdProtocolError("an export name longer than its message")
        names.append(protocol.decode_text(payload[4 : 4 + length]))
    yield protocol.pack_option(Option.ABORT)
    return names


def list_contexts(export: str, queries: Sequence[str] = ()) -> Exchange[list[str]]:
    """Ask which meta contexts ``export`` has (NBD_OPT_LIST_META_CONTEXT) and end the session.

    Raises:
        NbdRefusedError: the server does not tell.
        NbdProtocolError: the server broke the protocol.
    """
    yield from greet()
    yield from ask(Option.STRUCTURED_REPLY)
    payload = protocol.pack_contexts(export, list(queries))
    replies = yield from ask(Option.LIST_META_CONTEXT, payload)
    yield protocol.pack_option(Option.ABORT)
    return [name for _number, name in map(_parse_context, replies)]


def ask(option: Option, payload: bytes = b"") -> Exchange[list[tuple[int, bytes]]]:
    """Send one option and collect the replies (type, payload) up to the acknowledgement.

    Raises:
        NbdRefusedError: the server answered with an error.
        NbdProtocolError: the answer is malformed or endless.
    """
    yield protocol.pack_option(option, payload)
    replies: list[tuple[int, bytes]] = []
    while len(replies) <= protocol.MAX_OPTION_REPLIES:
        header = yield from receive(protocol.OPTION_REPLY.size)
        magic, echoed, kind, length = protocol.OPTION_REPLY.unpack(header)
        if magic != protocol.OPTION_REPLY_MAGIC or echoed != option:
            raise NbdProtocolError(f"no reply to option {option.name} where one was due")
        body = yield from receive(length)
        if kind & protocol.REPLY_ERROR_BIT:
            raise NbdRefusedError(option, kind, body[: protocol.MAX_STRING].decode(errors="replace"))
        if kind == OptionReply.ACK:
            return replies
        replies.append((kind, body))
    raise NbdProtocolError(f"more than {protocol.MAX_OPTION_REPLIES} replies to option {option.name}")


def _set_contexts(export: str, contexts: Sequence[str]) -> Exchange[dict[int, str]]:
    payload = protocol.pack_contexts(export, list(contexts))
    replies = yield from ask(Option.SET_META_CONTEXT, payload)
    agreed = dict(map(_parse_context, replies))
    if len(agreed) != len(replies) or len(set(agreed.values())) != len(replies):
        raise NbdProtocolError("the same meta context twice")
    # A server may answer a query with contexts that nobody asked for; we cannot refuse them, but their
    # status arrives with ours and has to be told apart, so they stay in the table.
    return agreed


def _parse_context(reply: tuple[int, bytes]) -> tuple[int, str]:
    kind, payload = reply
    if kind != OptionReply.META_CONTEXT or len(payload) < 4:
        raise NbdProtocolError("a malformed answer about meta contexts")
    return protocol.U32.unpack_from(payload)[0], protocol.decode_text(payload[4:])


def _go(export: str, agreed: Negotiated) -> Exchange[None]:
    request = protocol.encode_text(export) + protocol.U16.pack(1) + protocol.U16.pack(Info.BLOCK_SIZE)
    seen_export = False
    for kind, payload in (yield from ask(Option.GO, request)):
        if kind != OptionReply.INFO or len(payload) < 2:
            raise NbdProtocolError("a malformed answer to NBD_OPT_GO")
        info = protocol.U16.unpack_from(payload)[0]
        if info == Info.EXPORT:
            if len(payload) != protocol.INFO_EXPORT.size:
                raise NbdProtocolError("a malformed NBD_INFO_EXPORT")
            _, agreed.size, flags = protocol.INFO_EXPORT.unpack(payload)
            agreed.flags = TransmissionFlag(flags)
            seen_export = True
        elif info == Info.BLOCK_SIZE:
            _take_block_sizes(payload, agreed)
    if not seen_export:
        raise NbdProtocolError("the server accepted the export without describing it")


def _take_block_sizes(payload: bytes, agreed: Negotiated) -> None:
    if len(payload) != protocol.INFO_BLOCK_SIZE.size:
        raise NbdProtocolError("a malformed NBD_INFO_BLOCK_SIZE")
    _, minimum, preferred, maximum = protocol.INFO_BLOCK_SIZE.unpack(payload)
    sensible = 1 <= minimum <= 65536 and minimum & (minimum - 1) == 0
    # A maximum of all ones means "no limit", and need not be a multiple of the minimum.
    if not sensible or preferred < minimum or maximum < minimum:
        raise NbdProtocolError(f"block sizes {minimum}, {preferred}, {maximum}")
    agreed.minimum_block = minimum
    agreed.preferred_block = preferred
    agreed.maximum_block = maximum - maximum % minimum


def _export_name(export: str, agreed: Negotiated, *, padded: bool) -> Exchange[None]:
    # The oldest way: no reply header, and a server that has no such export just hangs up.
    yield protocol.pack_option(Option.EXPORT_NAME, export.encode())
    answer = yield from receive(protocol.EXPORT_NAME_REPLY.size)
    agreed.size, flags = protocol.EXPORT_NAME_REPLY.unpack(answer)
    agreed.flags = TransmissionFlag(flags)
    if padded:
        yield from receive(protocol.EXPORT_NAME_PADDING)
