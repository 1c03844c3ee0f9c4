"""The probe of KVM."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotspare.platforms.libvirt import kvm
from hotspare.platforms.libvirt.kvm import boot_problem, kvm_problem, look_at_kvm


@pytest.fixture
def note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Where a problem is noted, of a host whose KVM has one."""
    monkeypatch.setattr(kvm, "runtime_folder", lambda: tmp_path / "run")
    monkeypatch.setattr(kvm, "_DEVICE", tmp_path)
    monkeypatch.setattr(kvm, "boot_problem", lambda _accelerator: "too slow")
    monkeypatch.setattr(kvm, "_SECONDS", 0.0)
    kvm_problem.cache_clear()
    yield tmp_path / "run/kvm-problem"
    kvm_problem.cache_clear()


def test_the_probe_passes_where_a_machine_works() -> None:
    assert boot_problem("tcg") is None


def test_an_accelerator_that_does_not_work_is_named() -> None:
    assert "no-such" in str(boot_problem("no-such"))


def test_a_problem_is_believed_for_an_hour(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kvm_problem() == "too slow"
    monkeypatch.setattr(kvm, "boot_problem", lambda _accelerator: pytest.fail("it was looked for again"))
    kvm_problem.cache_clear()
    assert kvm_problem() == "too slow"

    earlier = time.time() - 3601
    os.utime(note, (earlier, earlier))
    monkeypatch.setattr(kvm, "boot_problem", lambda _accelerator: None)
    kvm_problem.cache_clear()
    assert kvm_problem() is None
    assert not note.exists()


def test_what_is_found_out_at_once_is_not_noted(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "_SECONDS", 60.0)
    assert kvm_problem() == "too slow"
    assert not note.exists()


def test_who_looks_for_problems_looks_again(note: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kvm_problem() == "too slow"
    monkeypatch.setattr(kvm, "boot_problem", lambda _accelerator: None)
    assert look_at_kvm() is None
    kvm_problem.cache_clear()
    assert kvm_problem() is None


def test_a_note_that_cannot_be_made_does_no_harm(note: Path) -> None:
    note.parent.write_text("not a folder")
    assert kvm_problem() == "too slow"
