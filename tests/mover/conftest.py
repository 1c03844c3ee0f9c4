"""The servers of ``tests/storage`` for the tests of this folder, and a host behind one of them."""

from tests.mover.remote import remote
from tests.storage.conftest import any_sshd, seaweed

__all__ = ["any_sshd", "remote", "seaweed"]
