"""Restore points for boot tests, most of them of machines that were never started: disks written by hand."""

import subprocess
from pathlib import Path

from lab import DiskSpec, LabGuest, connection
from lab.disks import KERNEL_ARGUMENTS, make_data_disk

MIB = 1024 * 1024

NETWORK = """
for module in failover net_failover virtio_net; do insmod /modules/$module.ko; done
ip link set eth0 up
"""
_START = "/data/system/start -c listen_addresses=* -c port=5432"
_CREATE = "CREATE TABLE orders AS SELECT 7 AS n"
FILL = f"""{_START} && su -s /bin/sh postgres -c 'psql -h /run/postgresql -XAtc "{_CREATE}; CHECKPOINT"'"""
"""Starts the database of the next one where it has no network, and puts in what is asked for later."""
DATABASE = f"""{NETWORK}
mkdir -p /etc/hotspare/checks.d
echo 'echo it is the wrong time; exit 3' >/etc/hotspare/checks.d/clock
ip address add 192.168.77.5/24 dev eth0
ip route add default via 192.168.77.1
{_START}
while :; do ping -c 1 -W 1 192.168.77.1; sleep 1; done
"""
"""A database server with an address of its own, whose gateway is not there."""
APPLICATION = f"""{NETWORK}
mkdir -p /etc/hotspare/checks.d
cat >/etc/hotspare/checks.d/database <<'END'
#!/bin/sh
: | nc -w 3 192.168.77.5 5432 2>/dev/null || {{ echo "the database cannot be reached"; exit 75; }}
! ping -c 1 -W 1 10.68.0.99 >/dev/null || {{ echo "an address answers that nobody has"; exit 1; }}
echo "the database answers $(ip address show dev eth0 | sed -n 's/.*inet \\([0-9.]*\\).*/\\1/p')"
END
cat >/run/take <<'END'
[ "$1" != bound ] || ip address add "$ip/24" dev eth0
[ "$1" != bound ] || ip route add default via "$router"
END
chmod 755 /run/take
udhcpc -f -q -n -t 20 -i eth0 -s /run/take -r 192.168.77.6
"""
"""A machine that asks for the address that it had before, and needs the database."""
WITHOUT_AGENT = """
rm /usr/sbin/qemu-ga; killall qemu-ga
while :; do date >>/data/alive; sync; sleep 1; done
"""


def machine_that_panics(label: str) -> LabGuest:
    """Define one whose kernel is told to start what is not there, and then finds no root either."""
    guest = LabGuest.create(label, disks=[DiskSpec(size=16 * MIB, format="raw")])
    arguments = f"{KERNEL_ARGUMENTS} rdinit=/nowhere"
    assert KERNEL_ARGUMENTS in guest.xml
    connection().defineXML(guest.xml.replace(KERNEL_ARGUMENTS, arguments))
    return guest


def machine_that_is_off(label: str, at_boot: str, *, network: bool = False) -> LabGuest:
    """Define a machine that was never started."""
    guest = LabGuest.create(label, disks=[DiskSpec(size=16 * MIB, format="raw")], network=network)
    _put(guest.disks["vda"], "at-boot", at_boot)
    return guest


def empty_image(path: Path) -> Path:
    """Make a disk that nothing can boot from."""
    make_data_disk(path, DiskSpec(size=16 * MIB, format="raw"))
    return path


def _put(image: Path, name: str, content: str) -> None:
    """Write a file into the ext4 on an image."""
    source = image.with_name("to-be-written")
    source.write_text(content)
    command = ["debugfs", "-w", "-R", f"write {source} {name}", str(image)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "Allocated inode" in done.stdout, done.stderr  # it ends with 0 whatever happens
    source.unlink()
