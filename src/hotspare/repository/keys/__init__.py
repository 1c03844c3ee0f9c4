"""Who can open a repository, and the keys that follow from its secrets.

``keyring`` derives every key from the secrets; ``slot`` is one way in (a passphrase, a key file, a
recovery key); ``keychest`` is the set of slots in the store; ``recovery`` is a recovery key as people
write it down. See docs/repository-format.md, "Keys".
"""

from hotspare.repository.keys.keyring import KEY_SIZE, SEED_SIZE, TAG_SIZE, Keyring, Secrets, new_secrets

__all__ = ["KEY_SIZE", "SEED_SIZE", "TAG_SIZE", "Keyring", "Secrets", "new_secrets"]
