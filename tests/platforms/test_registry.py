"""Which platform a URI means."""

import subprocess
import sys
from pathlib import Path

import pytest

from hotspare.errors import PlatformUnavailable, UsageError
from hotspare.platforms.registry import open_platform


def test_a_folder_is_a_platform_of_images(tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    folder.mkdir()

    by_path = open_platform(str(folder))

    assert by_path.uri.startswith("images:///")
    assert open_platform(by_path.uri).probe()[0].detail == str(folder)


@pytest.mark.parametrize(
    "uri", ["xen:///system", "qemu+ssh://host/system", "qemu://host/system", "images://a/b", "replica://a/b"]
)
def test_what_is_not_known_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match=uri.split(":", 1)[0].replace("+", r"\+")):
        open_platform(uri)


def test_a_libvirt_uri_reaches_libvirt() -> None:
    with pytest.raises(PlatformUnavailable):
        open_platform("qemu:///system?socket=/nonexistent/libvirt-sock")


def test_libvirt_is_not_needed_until_it_is_used() -> None:
    script = "import sys, hotspare.platforms.registry; sys.exit('libvirt' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
