"""The list of nouns. Each one's file is imported when the noun is used."""

from cyclopts import App

from hotspare import __version__

app = App(
    name="hotspare",
    help="Back up virtual machines while they run, and get them back.",
    help_format="plaintext",
    help_epilogue=(
        "Begin with:\n"
        "  export HOTSPARE_REPOSITORY=file:///srv/backup\n"
        "  hotspare repo create\n"
        "  hotspare machine list\n"
        "  hotspare backup MACHINE\n\n"
        'Each command has its own --help, with examples. Exit statuses: 0 is done, all else is not; "hotspare'
        ' backup --help" lists those of a backup.'
    ),
    version=__version__,
    version_flags=("--version",),
    result_action="return_value",
)

NOUNS = {
    "repo": "Make a repository, describe it, check it, repair it, copy it.",
    "key": "See who can open the repository, and change it.",
    "machine": "See which machines a platform has, and since when they are protected.",
    "backup": "Back up machines, or a disk image.",
    "policy": "Say what is protected, when, how and for how long, and have it done.",
    "server": "Have policies run by themselves and serve the HTTP interface; movers on other hosts.",
    "job": "See what the server does, cancel it, have it done again or sooner.",
    "config": "Keep all policies in one YAML document: export, compare, apply.",
    "notice": "See who is told when something is wrong, try that out, and see what was sent.",
    "watchdog": "Look whether machines are protected as promised, whatever the server does or does not.",
    "load": "Sample how busy hosts are, and see when backups disturb least.",
    "self": "Keep Hotspare's own memory in the repository, and rebuild a lost server of it.",
    "point": "See restore points, serve their disks, forget them.",
    "replica": "Keep machines on a second host as well, ready to go on there.",
    "files": "Look for files inside restore points, and get them back.",
    "mount": "Show the files of restore points as a folder, until Ctrl-C.",
    "restore": "Restore a machine as a new one or over itself, or single disks to files.",
    "recover": "Start a machine straight from the repository, within seconds.",
    "verify": "Read restore points back, or start them, and prove that they are good.",
    "run": "See what was done on this host, and how it ended.",
    "report": "Sum up a period: runs, promises kept, tested restores, what is protected and stored.",
    "sweep": "Remove what backups that were killed left on a platform.",
    "mover": "Do a command's work on this host, for a user of another.",
    "user": "See who may use the server, and change it.",
    "audit": "See what was done on the server, and prove that nobody has changed that record.",
    "doctor": "Say what this host lacks, and how to mend it.",
    "completion": "Print the completion script of a shell.",
}

for _name, _summary in NOUNS.items():
    app.command(f"hotspare.cli.{_name}:app", name=_name, help=_summary)
