"""The servers of ``tests/storage`` for the tests of this folder."""

from tests.storage.conftest import any_sshd, seaweed

__all__ = ["any_sshd", "seaweed"]
