"""Databases that are written to all the time are copied as they are at one moment."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from hotspare.errors import HotspareError
from hotspare.self_backup.collect import copy_database

_ACCOUNTS = 200


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_copy_holds_whole_transactions_only(tmp_path: Path, journal: str) -> None:
    source = tmp_path / "busy.sqlite"
    with closing(sqlite3.connect(source, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute("CREATE TABLE accounts (number INTEGER PRIMARY KEY, money INTEGER, pad BLOB)")
        connection.executemany(
            "INSERT INTO accounts VALUES (?, 100, ?)", [(number, bytes(3000)) for number in range(_ACCOUNTS)]
        )
    stop = threading.Event()
    moved: list[int] = []

    def move_money() -> None:
        with closing(sqlite3.connect(source, isolation_level=None, timeout=30)) as busy:
            at = 0
            while not stop.is_set():
                busy.execute("BEGIN IMMEDIATE")
                busy.execute("UPDATE accounts SET money = money - 1 WHERE number = ?", (at % _ACCOUNTS,))
                far = (at * 37 + 11) % _ACCOUNTS
                busy.execute("UPDATE accounts SET money = money + 1 WHERE number = ?", (far,))
                busy.execute("COMMIT")
                at += 1
                stop.wait(0.002)
            moved.append(at)

    thread = threading.Thread(target=move_money)
    thread.start()
    try:
        for number in range(3):
            copy = tmp_path / f"copy{number}.sqlite"
            copy_database(source, copy)
            with closing(sqlite3.connect(copy)) as connection:
                assert connection.execute("SELECT sum(money) FROM accounts").fetchone() == (100 * _ACCOUNTS,)
    finally:
        stop.set()
        thread.join()
    assert moved[0] > 5, "it was written to meanwhile"


def test_a_damaged_database_is_not_taken_for_a_good_one(tmp_path: Path) -> None:
    source = tmp_path / "damaged.sqlite"
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("CREATE TABLE t (a TEXT)")
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 200)
        connection.commit()
    content = bytearray(source.read_bytes())
    content[4096 * 3 : 4096 * 5] = b"\xff" * 8192
    source.write_bytes(content)
    with pytest.raises(HotspareError, match="cannot be copied"):
        copy_database(source, tmp_path / "copy.sqlite")
