"""What can go wrong in the lab."""


class LabError(RuntimeError):
    """The lab cannot do what was asked; the text says what to do about it."""


class CommandError(LabError):
    """A command inside a guest ended with a status other than zero.

    Attributes:
        status: exit status; -1 when a signal ended the command.
        stdout: what it printed before, decoded.
        stderr: what it complained about, decoded.
    """

    def __init__(self, guest: str, command: str, status: int, stdout: str, stderr: str) -> None:
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        super().__init__(
            f"{guest}: {command!r} ended with status {status}: {stderr.strip() or stdout.strip()}"
        )
