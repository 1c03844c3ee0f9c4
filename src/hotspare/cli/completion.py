"""``hotspare completion``: the completion script of a shell."""

from typing import Literal

from hotspare.cli.app import app as whole
from hotspare.cli.help import closing, noun
from hotspare.cli.output import print_text

app = noun("completion", "Print the completion script of a shell.")


@app.default
def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the script that completes hotspare's commands and options in a shell.

    Args:
        shell: The shell that the script is for.
    """
    print_text(whole.generate_completion(shell=shell).rstrip())


app.help_epilogue = closing(
    [
        "hotspare completion bash > /etc/bash_completion.d/hotspare",
        "hotspare completion zsh > ~/.zfunc/_hotspare",
        "hotspare completion fish > ~/.config/fish/completions/hotspare.fish",
    ]
)
