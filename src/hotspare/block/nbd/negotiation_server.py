"""The server's half of fixed-newstyle negotiation, without I/O.

Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md, section "Handshake phase".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hotspare.block.nbd import protocol
from hotspare.block.nbd.protocol import (
    Exchange,
    HandshakeFlag,
    Info,
    NbdProtocolError,
    Option,
    OptionReply,
    TransmissionFlag,
    receive,
)

MAX_OPTIONS = 1024
"""Most options of one session; a client that goes on for longer wants something else than a disk."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What clients are told about one export. ``contexts`` are the names of its meta contexts."""

    size: int
    flags: TransmissionFlag
    contexts: tuple[str, ...]
    minimum_block: int = 1
    preferred_block: int = 65536
    maximum_block: int = protocol.MAX_PAYLOAD


@dataclass(slots=True)
class Agreement:
    """What one session has agreed on. ``contexts`` maps the number of a meta context to its name."""

    export: str = ""
    structured: bool = False
    contexts: dict[int, str] = field(default_factory=dict)


class _InvalidOptionError(Exception):
    """The payload of an option makes no sense; the client is told and may go on."""


class ServerNegotiation:
    """Answers the options of one client until it has chosen one of the exports."""

    def __init__(self, offers: Mapping[str, Offer]) -> None:
        self._offers = offers
        self._agreement = Agreement()
        self._contexts_of: str | None = None
        self._no_zeroes = False

    def run(self) -> Exchange[Agreement | None]:
        """Go from our greeting to the transmission phase; None if the client left without an export.

        Raises:
            NbdProtocolError: the client broke the protocol; hang up.
        """
        ours = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES
        yield protocol.GREETING.pack(protocol.GREETING_MAGIC, protocol.OPTION_MAGIC, ours)
        (flags,) = protocol.CLIENT_FLAGS.unpack((yield from receive(protocol.CLIENT_FLAGS.size)))
        if flags & ~int(ours) or not flags & HandshakeFlag.FIXED_NEWSTYLE:
            raise NbdProtocolError(f"the client does not know fixed-newstyle negotiation ({flags:#x})")
        self._no_zeroes = bool(flags & HandshakeFlag.NO_ZEROES)
        for _ in range(MAX_OPTIONS):
            header = yield from receive(protocol.OPTION.size)
            magic, option, length = protocol.OPTION.unpack(header)
            if magic != protocol.OPTION_MAGIC:
                raise NbdProtocolError("no option where one was due")
            payload = yield from receive(length)
            if option == Option.ABORT:
                yield protocol.pack_option_reply(option, OptionReply.ACK)
                return None
            if option == Option.EXPORT_NAME:
                return (yield from self._export_name(payload))
            chosen = yield from self._answer(option, payload)
            if chosen:
                return self._agreement
        raise NbdProtocolError(f"more than {MAX_OPTIONS} options")

    def _answer(self, option: int, payload: bytes) -> Exchange[bool]:
        """Answer one option; return whether the transmission phase begins. STARTTLS belongs here too."""
        handlers = {
            Option.LIST: self._list,
            Option.INFO: self._info,
            Option.GO: self._info,
            Option.STRUCTURED_REPLY: self._structured_reply,
            Option.LIST_META_CONTEXT: self._list_contexts,
            Option.SET_META_CONTEXT: self._set_contexts,
        }
        try:
            handler = handlers.get(Option(option))
        except ValueError:
            handler = None
        if handler is None:
            yield protocol.pack_option_reply(option, OptionReply.ERR_UNSUP)
            return False
        try:
            replies = handler(payload)
        except _InvalidOptionError as error:
            yield protocol.pack_option_reply(option, OptionReply.ERR_INVALID, str(error).encode())
            return False
        except KeyError:
            yield protocol.pack_option_reply(option, OptionReply.ERR_UNKNOWN, b"there is no such export")
            return False
        for kind, body in replies:
            yield protocol.pack_option_reply(option, kind, body)
        yield protocol.pack_option_reply(option, OptionReply.ACK)
        return option == Option.GO

    def _export_name(self, payload: bytes) -> Exchange[Agreement | None]:
        name = protocol.decode_text(payload)
        offer = self._offers.get(name)
        if offer is None:
            return None  # there is no way to answer but hanging up
        self._choose(name)
        padding = b"" if self._no_zeroes else bytes(protocol.EXPORT_NAME_PADDING)
        yield protocol.EXPORT_NAME_REPLY.pack(offer.size, offer.flags) + padding
        return self._agreement

    def _choose(self, name: str) -> None:
        self._agreement.export = name
        if self._contexts_of != name:
            self._agreement.contexts = {}

    def _list(self, payload: bytes) -> list[tuple[int, bytes]]:
        if payload:
            raise _InvalidOptionError("a payload where there is none")
        return [(OptionReply.SERVER, protocol.encode_text(name)) for name in self._offers]

    def _structured_reply(self, payload: bytes) -> list[tuple[int, bytes]]:
        if payload:
            raise _InvalidOptionError("a payload where there is none")
        self._agreement.structured = True
        return []

    def _info(self, payload: bytes) -> list[tuple[int, bytes]]:
        name, rest = _take_text(payload)
        if len(rest) < 2 or len(rest) != 2 + 2 * protocol.U16.unpack_from(rest)[0]:
            raise _InvalidOptionError("a list of requests of the wrong length")
        offer = self._offers[name]
        self._choose(name)
        sizes = (offer.minimum_block, offer.preferred_block, offer.maximum_block)
        return [
            (OptionReply.INFO, protocol.INFO_EXPORT.pack(Info.EXPORT, offer.size, offer.flags)),
            (OptionReply.INFO, protocol.INFO_BLOCK_SIZE.pack(Info.BLOCK_SIZE, *sizes)),
        ]

    def _list_contexts(self, payload: bytes) -> list[tuple[int, bytes]]:
        name, queries = _take_queries(payload)
        known = self._offers[name].contexts
        # A query that ends with a colon asks for everything below it; no query asks for everything.
        chosen = [
            context
            for context in known
            if not queries or any(context == query or _is_below(context, query) for query in queries)
        ]
        return [(OptionReply.META_CONTEXT, protocol.U32.pack(0) + context.encode()) for context in chosen]

    def _set_contexts(self, payload: bytes) -> list[tuple[int, bytes]]:
        self._contexts_of, self._agreement.contexts = None, {}
        if not self._agreement.structured:
            raise _InvalidOptionError("structured replies have to be agreed on first")
        name, queries = _take_queries(payload)
        known = self._offers[name].contexts
        chosen = [context for context in known if context in queries]
        self._contexts_of, self._agreement.contexts = name, dict(enumerate(chosen, start=1))
        return [
            (OptionReply.META_CONTEXT, protocol.U32.pack(number) + context.encode())
            for number, context in self._agreement.contexts.items()
        ]


def _is_below(context: str, query: str) -> bool:
    return query.endswith(":") and context.startswith(query)


def _take_text(payload: bytes) -> tuple[str, bytes]:
    if len(payload) < 4:
        raise _InvalidOptionError("a string without its length")
    end = 4 + protocol.U32.unpack_from(payload)[0]
    if end > len(payload):
        raise _InvalidOptionError("a string longer than its message")
    try:
        return protocol.decode_text(payload[4:end]), payload[end:]
    except NbdProtocolError as error:
        raise _InvalidOptionError(str(error)) from None


def _take_queries(payload: bytes) -> tuple[str, list[str]]:
    name, rest = _take_text(payload)
    if len(rest) < 4:
        raise _InvalidOptionError("a list of queries without its length")
    (count,), rest = protocol.U32.unpack_from(rest), rest[4:]
    if count > protocol.MAX_QUERIES:
        raise _InvalidOptionError(f"more than {protocol.MAX_QUERIES} queries")
    queries = []
    for _ in range(count):
        query, rest = _take_text(rest)
        queries.append(query)
    if rest:
        raise _InvalidOptionError("something after the last query")
    return name, queries
