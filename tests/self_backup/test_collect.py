"""Databases that are written to all the time are copied as they are at one moment."""

import sqlite3
import threading
import time
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
        rows = [(number, bytes(3000)) for number in range(_ACCOUNTS)]
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO accounts VALUES (?, 100, ?)", rows)
        connection.execute("COMMIT")
    stop = threading.Event()
    moved = 0

    def move_money() -> None:
        nonlocal moved
        with closing(sqlite3.connect(source, isolation_level=None, timeout=30)) as busy:
            busy.execute("PRAGMA synchronous = OFF")  # who reads beside it sees the same
            while not stop.is_set():
                at = moved
                busy.execute("BEGIN IMMEDIATE")
                busy.execute("UPDATE accounts SET money = money - 1 WHERE number = ?", (at % _ACCOUNTS,))
                far = (at * 37 + 11) % _ACCOUNTS
                busy.execute("UPDATE accounts SET money = money + 1 WHERE number = ?", (far,))
                busy.execute("COMMIT")
                moved += 1
                stop.wait(0.002)

    thread = threading.Thread(target=move_money)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        copies = 0
        while copies < 3 or moved < 10:
            assert time.monotonic() < deadline
            copies += 1
            copy = tmp_path / f"copy{copies}.sqlite"
            copy_database(source, copy)
            with closing(sqlite3.connect(copy)) as connection:
                assert connection.execute("SELECT sum(money) FROM accounts").fetchone() == (100 * _ACCOUNTS,)
    finally:
        stop.set()
        thread.join()


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
