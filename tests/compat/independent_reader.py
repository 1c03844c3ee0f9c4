"""A second reader of repositories, from docs/repository-format.md alone: nothing of Hotspare is used."""

import hashlib
import hmac
import json
import struct
from base64 import b64decode
from datetime import datetime
from pathlib import Path
from typing import Any

import argon2.low_level
import msgspec
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HOLE = bytes(32)


def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    extracted = hmac.new(salt or bytes(32), key, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def put_upon(payload: bytes, base: bytes) -> bytes:
    """Give the chunk of a delta payload."""
    size, block = len(base), 1 << (payload[0] & 31)
    blocks = -(-size // block)
    frame_at = 1 + -(-blocks // 8)
    bits = "".join(f"{byte:08b}" for byte in payload[1:frame_at])
    assert "1" not in bits[blocks:]
    changed = [number for number in range(blocks) if bits[number] == "1"]
    old = b"".join(base[number * block : (number + 1) * block] for number in changed)
    dictionary = None
    if payload[0] & 128 and len(old) >= 8:
        dictionary = zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    new = zstandard.ZstdDecompressor(dict_data=dictionary).decompress(payload[frame_at:])
    assert len(new) == len(old)
    plain = bytearray(base)
    for number in changed:
        length = min(block, size - number * block)
        plain[number * block : number * block + length] = new[:length]
        new = new[length:]
    return bytes(plain)


class IndependentReader:
    def __init__(self, folder: Path, passphrase: str) -> None:
        self.folder = folder
        line, mac = (folder / "config").read_bytes().splitlines()
        self.config = json.loads(line)
        self.rid = bytes.fromhex(self.config["id"])
        secrets = self._open_slot(passphrase)
        self.id_key, self.epochs = secrets["id_key"], secrets["epochs"]
        assert blake3(line, key=hkdf(self.id_key, b"", b"hotspare config")).hexdigest() == mac.decode()
        self.places = self._read_tables()

    def _open_slot(self, passphrase: str) -> dict[str, Any]:
        """Open the one slot that such a repository has."""
        (path,) = (self.folder / "keys").iterdir()
        slot = json.loads(path.read_bytes())
        assert slot["kind"] == "passphrase"
        kdf, public, ephemeral = slot["kdf"], b64decode(slot["public"]), b64decode(slot["ephemeral"])
        wrapping = argon2.low_level.hash_secret_raw(
            passphrase.encode(),
            b64decode(kdf["salt"]),
            kdf["passes"],
            kdf["memory_kib"],
            kdf["lanes"],
            32,
            argon2.low_level.Type.ID,
        )
        rid = self.config["id"].encode()
        nonce, body = (b64decode(slot["private"][name]) for name in ("nonce", "body"))
        private = AESGCM(wrapping).decrypt(nonce, body, b"hotspare slot private key " + rid + public)
        shared = X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(ephemeral)
        )
        key = hkdf(shared, ephemeral + public, b"hotspare slot secrets")
        plain = AESGCM(key).decrypt(bytes(12), b64decode(slot["sealed"]), b"hotspare key slot " + rid)
        secrets: dict[str, Any] = msgspec.msgpack.decode(plain)
        assert secrets["slots"] == {path.name[:16]: public}
        assert secrets["current"] in secrets["epochs"]
        return secrets

    def _cipher(self, data: bytes, magic: bytes, purpose: bytes) -> AESGCM:
        found, epoch, seed = struct.unpack_from(">8sI32s", data)
        assert found == magic
        return AESGCM(hkdf(self.epochs[epoch], seed, purpose))

    def _read_tables(self) -> dict[bytes, tuple[Path, int, int, int, bytes]]:
        places = {}
        for kind in ("data", "meta"):
            for path in (self.folder / kind).glob("*/*"):
                data = path.read_bytes()
                assert blake3(data).hexdigest() == path.name
                length, foot = struct.unpack(">I8s", data[-12:])
                assert foot == b"HSPTOC\0\1"
                start = len(data) - 12 - length
                table = self._cipher(data, b"HSPACK\0\1", b"hotspare pack").decrypt(
                    start.to_bytes(12, "big"), data[start:-12], self.rid + b"table"
                )
                while table:
                    chunk_id, offset, size, codec = struct.unpack_from(">32sIIB", table)
                    end = 73 if codec == 2 else 41
                    assert len(table) >= end
                    places[chunk_id] = path, offset, size, codec, table[41:end]
                    table = table[end:]
        return places

    def index_rows(self) -> set[tuple[bytes, str, int, int, int, bytes]]:
        """Give id prefix, pack name, offset, length, codec and base of every row of every segment."""
        rows = set()
        for path in (self.folder / "index").iterdir():
            data = path.read_bytes()
            assert blake3(data).hexdigest() == path.name
            body = self._cipher(data, b"HSINDX\0\1", b"hotspare index").decrypt(
                (44).to_bytes(12, "big"), data[44:], self.rid + b"index segment"
            )
            (length,) = struct.unpack_from(">I", body)
            header = msgspec.msgpack.decode(body[4 : 4 + length])
            end = 4 + length + 28 * header["rows"]
            found = list(struct.iter_unpack(">16sIII", body[4 + length : end]))
            assert [row[0] for row in found] == sorted(row[0] for row in found)
            bases = dict(struct.iter_unpack(">I32s", body[end:]))
            assert len(bases) == header.get("deltas", 0)
            for number, (prefix, pack, offset, place) in enumerate(found):
                base = bases.get(number, b"")
                assert bool(base) == (place & 255 == 2)
                rows.add((prefix, header["packs"][pack][1].hex(), offset, place >> 8, place & 255, base))
        return rows

    def points(self) -> list[dict[str, Any]]:
        found = []
        for path in (self.folder / "points").glob("*/*"):
            data = path.read_bytes()
            name = f"points/{path.parent.name}/{path.name}"
            plain = self._cipher(data, b"HSPOIN\0\1", b"hotspare restore point").decrypt(
                (44).to_bytes(12, "big"), data[44:], self.rid + name.encode()
            )
            point = msgspec.msgpack.decode(plain)
            key = hkdf(self.id_key, b"", b"hotspare machine folder")
            assert blake3(point["machine_id"].encode(), key=key).digest(16).hex() == path.parent.name
            found.append(point)
        return sorted(found, key=lambda point: str(point["id"]))

    def locks(self) -> dict[str, datetime]:
        """Give until when each object is locked at least, by name."""
        dates: dict[str, datetime] = {}
        for path in (self.folder / "locks").iterdir():
            for until, names in self.record(f"locks/{path.name}"):
                for name in names:
                    dates[name] = max(until, dates.get(name, until))
        return dates

    def record(self, name: str) -> Any:
        """Give what one of the small records holds."""
        data = (self.folder / name).read_bytes()
        plain = self._cipher(data, b"HSRECO\0\1", b"hotspare record").decrypt(
            (44).to_bytes(12, "big"), data[44:], self.rid + name.encode()
        )
        return msgspec.msgpack.decode(plain)

    def chunk(self, chunk_id: bytes) -> bytes:
        path, offset, size, codec, base = self.places[chunk_id]
        data = path.read_bytes()
        payload = self._cipher(data, b"HSPACK\0\1", b"hotspare pack").decrypt(
            offset.to_bytes(12, "big"),
            data[offset : offset + size],
            self.rid + chunk_id + bytes([codec]) + base,
        )
        plain = payload
        if codec == 1:
            plain = zstandard.ZstdDecompressor().decompress(payload)
        elif codec == 2:
            assert self.places[base][3] != 2
            plain = put_upon(payload, self.chunk(base))
        assert blake3(plain, key=self.id_key).digest() == chunk_id
        return plain

    def disk(self, disk: dict[str, Any]) -> bytes:
        chunk_size, size = self.config["chunk_size"], disk["size"]
        widths = [-(-size // chunk_size)]
        while len(widths) == 1 or widths[-1] > 1:
            widths.append(-(-widths[-1] // 2048))
        level = [disk["root"]]
        for width in reversed(widths[:-1]):
            below: list[bytes] = []
            for number, page_id in enumerate(level):
                count = min(2048, width - number * 2048)
                page = bytes(32 * count) if page_id == HOLE else self.chunk(page_id)
                below += [page[at : at + 32] for at in range(0, 32 * count, 32)]
            level = below
        chunks = [bytes(chunk_size) if one == HOLE else self.chunk(one) for one in level]
        return b"".join(chunks)[:size]
