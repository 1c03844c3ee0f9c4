"""``hotspare point serve``, read by programs that are not ours."""

import subprocess
from pathlib import Path

from tests.cli.images import change_image, make_image
from tests.cli.program import Program, interrupt


def wait_until_served(process: subprocess.Popen[str], disk: str) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith(f"{disk}: nbd+unix:"), line
    return line.removeprefix(f"{disk}: ").strip()


def test_a_served_disk_is_the_disk_as_it_was(program: Program, tmp_path: Path) -> None:
    image = program.folder / "images" / "web.raw"
    make_image(image)
    then = tmp_path / "then.raw"
    then.write_bytes(image.read_bytes())
    program.expect("repo", "create")
    program.expect("backup", "web")
    change_image(image)
    program.expect("backup", "web")
    first = program.expect("point", "list", "-o", "json").document()["points"][0]["id"]

    socket = tmp_path / "point.sock"
    process = program.start("point", "serve", first, "--socket", socket)
    uri = wait_until_served(process, "disk0")
    try:
        subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", then, uri], check=True)
        copied = tmp_path / "copied.raw"
        subprocess.run(["nbdcopy", uri, copied], check=True)
        assert copied.read_bytes() == then.read_bytes()
    finally:
        done = interrupt(process)
    assert done.status == 0, done.err
    assert not socket.exists()


def test_a_socket_that_is_taken_is_left_alone(program: Program, tmp_path: Path) -> None:
    make_image(program.folder / "images" / "web.raw")
    program.expect("repo", "create")
    program.expect("backup", "web")
    taken = tmp_path / "taken"
    taken.write_text("precious")

    assert program.run("point", "serve", "web", "--socket", taken).status == 26
    assert taken.read_text() == "precious"
