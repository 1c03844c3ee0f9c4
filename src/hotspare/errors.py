"""Every error that a user can meet, in one tree.

An error says three things: what happened, what it means for the user's data, and what to do next.
Each class carries a stable ``code`` (for JSON output) and the exit status of the command line;
the table in docs/exit-codes.md is checked against this file by a test.
"""

from typing import ClassVar


class HotspareError(Exception):
    """Base of all errors that are reported as one paragraph, without a traceback.

    Args:
        what: what happened, naming the object (machine, disk, repository, file).
        meaning: what it means for the user's data ("nothing was written", "the point is whole").
        hint: what to do next.
    """

    code: ClassVar[str] = "failed"
    exit_status: ClassVar[int] = 1

    def __init__(self, what: str, *, meaning: str = "", hint: str = "") -> None:
        self.what = what
        self.meaning = meaning
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        return " ".join(_sentence(part) for part in (self.what, self.meaning, self.hint) if part)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."


class UsageError(HotspareError):
    """The command or its arguments make no sense."""

    code = "usage"
    exit_status = 2


class ConfigError(UsageError):
    """The configuration file or an environment variable cannot be used."""

    code = "config"


class PartialFailure(HotspareError):
    """Some machines of a run succeeded and some failed."""

    code = "partial"
    exit_status = 3


class RepositoryNotFound(HotspareError):
    """There is no repository at the given place."""

    code = "no-repository"
    exit_status = 10


class RepositoryExists(HotspareError):
    """A repository (or something else) is already at the given place."""

    code = "repository-exists"


class WrongKey(HotspareError):
    """No key slot opens with the passphrase that was given."""

    code = "wrong-key"
    exit_status = 12


class RepositoryTooNew(HotspareError):
    """The repository needs a feature that this version does not have."""

    code = "repository-too-new"
    exit_status = 13


class RepositoryDamaged(HotspareError):
    """Stored data is missing or fails its authentication."""

    code = "repository-damaged"
    exit_status = 14


class PlatformUnavailable(HotspareError):
    """The hypervisor does not answer, or a program of the host is missing."""

    code = "platform-unavailable"
    exit_status = 20


class MachineNotFound(HotspareError):
    """The platform knows no machine of that name."""

    code = "no-machine"
    exit_status = 21


class PolicyNotFound(HotspareError):
    """This host has no policy of that name."""

    code = "no-policy"
    exit_status = 34


class NoticeNotFound(HotspareError):
    """Nobody of that name is to be told anything on this host."""

    code = "no-notice"
    exit_status = 36


class NoticeNotSent(HotspareError):
    """A receiver of notices did not take what it was sent."""

    code = "notice-not-sent"
    exit_status = 37


class PromiseBroken(HotspareError):
    """Machines are not protected as promised, or something else that the watchdog looks at is wrong."""

    code = "promise-broken"
    exit_status = 38


class NotKnown(HotspareError):
    """A platform or a repository did not answer, so it is not known whether all is well."""

    code = "not-known"
    exit_status = 39


class PointNotFound(HotspareError):
    """The repository holds no such restore point."""

    code = "no-point"
    exit_status = 22


class PermissionRefused(HotspareError):
    """The operating system or the store refused access."""

    code = "permission"
    exit_status = 23


class NoSpace(HotspareError):
    """A file system or store that we write to is full."""

    code = "no-space"
    exit_status = 24


class SourceLost(HotspareError):
    """The machine or disk that was being read went away or stopped answering."""

    code = "source-lost"
    exit_status = 25


class TrackingWrong(HotspareError):
    """A platform said of data that it had not changed, and it had."""

    code = "tracking-wrong"
    exit_status = 29


class TargetExists(HotspareError):
    """What would be written is already there, and overwriting was not asked for."""

    code = "target-exists"
    exit_status = 26


class FileSystemUnreadable(HotspareError):
    """A file system inside a disk is damaged, or of a kind or with features that cannot be read here."""

    code = "file-system"
    exit_status = 30


class BootTestFailed(HotspareError):
    """A machine that was started from a restore point did not come to life, or failed a check."""

    code = "boot-test-failed"
    exit_status = 32


class Suspicious(HotspareError):
    """A malware scanner did not like a file of a restore point."""

    code = "suspicious"
    exit_status = 33


class PathNotFound(HotspareError):
    """A restore point has no such volume, or the volume no such file or folder."""

    code = "no-path"
    exit_status = 31


class ConsistencyNotReached(HotspareError):
    """The machine could not be made as quiet as the user requires."""

    code = "consistency"
    exit_status = 28


class StorageError(HotspareError):
    """The object store failed in a way that is neither space nor permission.

    Args:
        what: see ``HotspareError``.
        meaning: see ``HotspareError``.
        hint: see ``HotspareError``.
        may_pass: whether the same call may succeed a moment later (a lost connection, an overloaded
            server), so that asking again makes sense.
    """

    code = "storage"
    exit_status = 27

    def __init__(self, what: str, *, meaning: str = "", hint: str = "", may_pass: bool = False) -> None:
        super().__init__(what, meaning=meaning, hint=hint)
        self.may_pass = may_pass


class ObjectNotFound(StorageError):
    """The object store has no object of that name."""

    code = "no-object"


class RunExpelled(HotspareError):
    """A collector of garbage gave the run up, because it stood still for too long."""

    code = "expelled"


class PointKept(HotspareError):
    """The restore point is to be kept, and forgetting it was not forced."""

    code = "point-kept"


class LoginRefused(HotspareError):
    """The server does not know who asks, or does not believe it."""

    code = "login"
    exit_status = 40


class TooManyAttempts(LoginRefused):
    """There were too many failed logins; the next has to wait.

    Args:
        what: see ``HotspareError``.
        meaning: see ``HotspareError``.
        hint: see ``HotspareError``.
        seconds: for how long.
    """

    code = "too-many-attempts"

    def __init__(self, what: str, *, meaning: str = "", hint: str = "", seconds: int = 1) -> None:
        super().__init__(what, meaning=meaning, hint=hint)
        self.seconds = seconds


class NotPermitted(HotspareError):
    """Who asks is known to the server, and may not do that."""

    code = "not-permitted"
    exit_status = 41


class NotThere(HotspareError):
    """The server has nothing of that name, or shows it to others only."""

    code = "not-there"
    exit_status = 42


class UserNotFound(NotThere):
    """The server has no user of that name."""

    code = "no-user"


class TokenNotFound(NotThere):
    """The server has no such token."""

    code = "no-token"


class PasskeyNotFound(NotThere):
    """The user has no such passkey."""

    code = "no-passkey"


class ApprovalNotFound(NotThere):
    """Nothing of that name waits for a second person."""

    code = "no-approval"


class ActionNotFound(NotThere):
    """The server has no such action."""

    code = "no-action"


class JobNotFound(NotThere):
    """The server has no such job."""

    code = "no-job"


class ProviderUnavailable(HotspareError):
    """The identity provider does not answer, or not as it should."""

    code = "identity-provider"


class JobDatabaseUnavailable(HotspareError):
    """The job database does not answer, or no server has ever used it."""

    code = "job-database"


class Conflict(HotspareError):
    """What is asked for contradicts what is there already."""

    code = "conflict"


class UserExists(Conflict):
    """The server has a user of that name already."""

    code = "user-exists"


class AuditBroken(HotspareError):
    """The record of what was done is not as it was written."""

    code = "audit-broken"
    exit_status = 43


class ServerUnavailable(HotspareError):
    """The server does not answer, or with something that is none of its answers."""

    code = "server-unavailable"
    exit_status = 44


class Interrupted(HotspareError):
    """The user or the service manager asked us to stop."""

    code = "interrupted"
    exit_status = 130
