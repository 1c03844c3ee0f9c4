"""Key slots: who gets in, who does not, and what changes to them never lose."""

import base64
import json
import secrets
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotspare.errors import RepositoryDamaged, UsageError, WrongKey
from hotspare.repository.keys import Secrets
from hotspare.repository.keys.keychest import Keychest, new_key_file, new_recovery_key, read_slots
from hotspare.repository.keys.slot import (
    Credential,
    KeyFile,
    KeySlot,
    Passphrase,
    RecoveryKey,
    make_slot,
    new_kdf,
    open_private,
    open_secrets,
    seal_secrets,
)
from hotspare.repository.opening import open_keys
from hotspare.repository.repository import Repository
from hotspare.storage.local import LocalBackend
from tests.repository.conftest import PASSPHRASE, StorePoint
from tests.watched_backend import WatchedBackend

FIRST = Passphrase(PASSPHRASE)


def chest_of(backend: LocalBackend | WatchedBackend, credential: Credential = FIRST) -> Keychest:
    return open_keys(backend, credential)[1]


def opens(backend: LocalBackend, credential: Credential) -> bool:
    try:
        Repository.open(backend, credential)
    except WrongKey:
        return False
    return True


OTHERS: list[Credential] = [Passphrase("another"), new_key_file(), new_recovery_key()]


@pytest.mark.parametrize("credential", OTHERS, ids=lambda one: one.kind)
def test_each_kind_of_slot_opens_the_repository(
    repository: Repository, backend: LocalBackend, store_point: StorePoint, credential: Credential
) -> None:
    point = store_point(repository, "web", b"x" * 1000)
    assert not opens(backend, credential)
    chest_of(backend).add(credential)

    assert [found.id for found in Repository.open(backend, credential).points()] == [point.id]
    assert opens(backend, FIRST)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (Passphrase("a"), Passphrase("b")),
        (KeyFile(b"a" * 32), KeyFile(b"b" * 32)),
        (RecoveryKey(b"a" * 32), RecoveryKey(b"b" * 32)),
        (KeyFile(b"a" * 32), RecoveryKey(b"a" * 32)),
    ],
)
def test_a_wrong_credential_opens_nothing(
    repository: Repository, backend: LocalBackend, right: Credential, wrong: Credential
) -> None:
    chest_of(backend).add(right)
    with pytest.raises(WrongKey):
        Repository.open(backend, wrong)


def test_a_recovery_key_of_another_repository_says_so(
    repository: Repository, backend: LocalBackend, tmp_path: Path
) -> None:
    other = LocalBackend(tmp_path / "other")
    Repository.create(other, PASSPHRASE)
    chest_of(other).add(new_recovery_key())
    key = new_recovery_key()
    chest_of(backend).add(key)
    with pytest.raises(WrongKey, match="recovery key does not open"):
        Repository.open(other, key)


def test_after_a_rotation_every_slot_reads_old_and_new(
    repository: Repository, backend: LocalBackend, store_point: StorePoint
) -> None:
    credentials: list[Credential] = [FIRST, new_key_file(), new_recovery_key()]
    for credential in credentials[1:]:
        chest_of(backend).add(credential)
    old = store_point(repository, "web", b"old" * 1000)
    epoch = chest_of(backend, credentials[1]).rotate()
    rotated = Repository.open(backend, FIRST)
    assert rotated.keyring.epoch == epoch > repository.keyring.epoch
    new = store_point(rotated, "web", b"new" * 1000)

    for credential in credentials:
        assert {point.id for point in Repository.open(backend, credential).points()} == {old.id, new.id}
    assert {point.id for point in rotated.points()} == {old.id, new.id}


def test_what_was_open_before_a_rotation_goes_on(
    repository: Repository, backend: LocalBackend, store_point: StorePoint
) -> None:
    chest_of(backend).rotate()
    late = store_point(repository, "web", b"late" * 1000)
    assert [point.id for point in Repository.open(backend, FIRST).points()] == [late.id]


@pytest.mark.parametrize("survives", range(6))
def test_a_rotation_that_is_cut_short_anywhere_loses_nobody(
    repository: Repository, backend: LocalBackend, store_point: StorePoint, survives: int
) -> None:
    credentials: list[Credential] = [FIRST, Passphrase("two"), new_key_file()]
    for credential in credentials[1:]:
        chest_of(backend).add(credential)
    watched = WatchedBackend(backend)
    chest = chest_of(watched)
    puts = 0

    def cut(_name: str) -> None:
        nonlocal puts
        puts += 1
        if puts > survives:
            raise OSError("power cut")

    watched.before_put = cut
    with pytest.raises(OSError, match="power cut"):
        chest.rotate()

    for writer in credentials:
        store_point(Repository.open(backend, writer), "web", b"x" * 1000)
    for reader in credentials:
        assert len(Repository.open(backend, reader).points()) == len(credentials)


def test_changes_that_two_people_make_at_once_are_both_kept(
    repository: Repository, backend: LocalBackend, store_point: StorePoint
) -> None:
    mine, theirs = chest_of(backend), chest_of(backend)
    added = [Passphrase("mine"), Passphrase("theirs")]
    mine.add(added[0])
    theirs.add(added[1])
    epochs = {mine.rotate(), theirs.rotate()}

    chest = chest_of(backend)
    assert epochs <= chest.secrets.epochs.keys()
    chest.rotate()
    store_point(Repository.open(backend, FIRST), "web", b"x" * 1000)
    for credential in (FIRST, *added):
        assert len(Repository.open(backend, credential).points()) == 1


def test_a_removed_slot_opens_nothing_any_more(repository: Repository, backend: LocalBackend) -> None:
    gone = Passphrase("gone")
    chest = chest_of(backend)
    slot = chest.add(gone)
    chest.remove(slot)

    assert not opens(backend, gone)
    assert opens(backend, FIRST)
    assert slot not in {stored.id for stored in read_slots(backend)}


def test_a_removed_slot_that_is_put_back_learns_no_new_key(
    repository: Repository, backend: LocalBackend
) -> None:
    gone = Passphrase("gone")
    chest = chest_of(backend)
    slot = chest.add(gone)
    (name,) = [item.name for item in backend.list(f"keys/{slot}")]
    kept = backend.get(name)
    chest.remove(slot)
    backend.put(name, [kept])
    epoch = chest_of(backend).rotate()

    assert epoch not in chest_of(backend, gone).secrets.epochs
    (stored,) = [each for each in read_slots(backend) if each.id == slot]
    assert not chest_of(backend).trusts(stored)


def test_a_slot_that_somebody_else_put_there_learns_nothing(
    repository: Repository, backend: LocalBackend
) -> None:
    intruder = new_recovery_key()
    slot = make_slot(intruder, repository.id, "2026-11-23")
    forged = seal_secrets(slot, Secrets(id_key=bytes(32), epochs={1: bytes(32)}, current=1), repository.id)
    backend.put("keys/00112233445566ff-00000000", [json.dumps(json_of(forged)).encode()])
    chest_of(backend).rotate()

    with pytest.raises((WrongKey, RepositoryDamaged)):
        Repository.open(backend, intruder)


def test_a_forged_public_half_for_my_slot_does_not_shut_me_out(
    repository: Repository, backend: LocalBackend
) -> None:
    (item,) = backend.list("keys/")
    forged = json.loads(backend.get(item.name)) | {"public": json_of(make_slot(FIRST, "x", ""))["public"]}
    backend.put(item.name[:-8] + "ffffffff", [json.dumps(forged).encode()])
    assert opens(backend, FIRST)
    chest_of(backend).rotate()
    assert opens(backend, FIRST)


def json_of(slot: KeySlot) -> dict[str, object]:

    content: dict[str, object] = msgspec.to_builtins(slot)
    return content


def test_the_last_passphrase_or_key_file_stays(repository: Repository, backend: LocalBackend) -> None:
    chest = chest_of(backend)
    chest.add(new_recovery_key())
    with pytest.raises(UsageError, match="last passphrase or key file"):
        chest.remove(chest.opened_with)
    key_file = new_key_file()
    chest.add(key_file)
    chest.remove(chest.opened_with)
    assert not opens(backend, FIRST)
    assert opens(backend, key_file)


def test_a_slot_that_is_not_there_cannot_be_removed(repository: Repository, backend: LocalBackend) -> None:
    with pytest.raises(UsageError, match="no key slot 77"):
        chest_of(backend).remove("77")


def test_a_passphrase_is_changed(repository: Repository, backend: LocalBackend) -> None:
    chest = chest_of(backend)
    chest.replace(Passphrase("new"), chest.opened_with)
    assert not opens(backend, FIRST)
    assert opens(backend, Passphrase("new"))


def test_old_objects_of_slots_do_not_pile_up(repository: Repository, backend: LocalBackend) -> None:
    chest_of(backend).add(Passphrase("two"))
    for _ in range(3):
        chest_of(backend).rotate()
    assert len(list(backend.list("keys/"))) == 2


def test_no_secret_is_in_the_store_in_the_clear(repository: Repository, backend: LocalBackend) -> None:
    key, file = new_recovery_key(), new_key_file()
    for credential in (key, file):
        chest_of(backend).add(credential)
    known = [
        PASSPHRASE.encode(),
        key.private,
        file.content,
        repository.keyring.secrets.id_key,
        repository.keyring.secrets.epochs[1],
    ]
    stored = b"".join(backend.get(item.name) for item in backend.list("keys/"))

    for secret in known:
        assert secret not in stored
        assert base64.b64encode(secret)[:20] not in stored


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_slot_with_flipped_bytes_never_gives_wrong_secrets(data: st.DataObject) -> None:
    credentials: list[Credential] = [
        Passphrase("p"),
        KeyFile(b"k" * 32),
        RecoveryKey(secrets.token_bytes(32)),
    ]
    credential = data.draw(st.sampled_from(credentials))
    unlocked = Secrets(id_key=b"i" * 32, epochs={1: b"e" * 32}, current=1)
    slot = seal_secrets(make_slot(credential, "00", ""), unlocked, "00")
    fields = json_of(slot)
    name = data.draw(st.sampled_from(["public", "ephemeral", "sealed", "kind"]))
    text = str(fields[name])
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("ABCabc+/=019~"))
    damaged = msgspec.structs.replace(slot, **{name: text[:at] + letter + text[at + 1 :]})
    private = open_private(damaged, credential, "00")
    if private is not None:
        assert open_secrets(damaged, private, "00") in (None, unlocked)


@settings(max_examples=100, deadline=None)
@given(junk=st.binary(max_size=300))
def test_junk_among_the_slots_is_passed_over(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    backend = LocalBackend(tmp_path_factory.mktemp("junk"))
    backend.put("keys/0011223344556677-00112233", [junk])
    for stored in read_slots(backend):
        assert open_private(stored.slot, FIRST, "00") is None


def test_a_new_passphrase_costs_what_rfc_9106_recommends() -> None:
    kdf = new_kdf()

    assert (kdf.passes, kdf.memory_kib, kdf.lanes) == (3, 64 * 1024, 4)
    assert kdf.salt != new_kdf().salt
