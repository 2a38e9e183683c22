"""The hosts of scripts/lab are what a test may rely on: apart from the world, and broken the way hardware breaks."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.lab_lib import disk, processes
from scripts.lab_lib.command import await_condition, run
from scripts.lab_lib.model import lab_id
from tests.lab.commands import ROOT, Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]

FAR_SIDE_S = 30
DISK = "/dev/disk/by-id/vstack-lab-d1"


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> Lab:
    """Two hosts; `one` has two disks, and the first of them holds a file system that is mounted at boot."""
    lab("up", "one:2:300", "two")
    lab.on(
        "one",
        f"""
        mkfs.ext4 -q {DISK}
        udevadm settle
        mkdir /srv/disk
        echo "UUID=$(blkid -s UUID -o value {DISK}) /srv/disk ext4 defaults 0 2" >>/etc/fstab
        systemctl daemon-reload
        systemctl start srv-disk.mount
        """,
    )
    return lab


@pytest.fixture
def whole(hosts: Lab) -> Iterator[Lab]:
    """The hosts, switched on and plugged in before and after a test."""
    yield hosts
    if hosts.state_of("one") == "frozen":
        hosts("thaw", "one")
    hosts("power-on", "one", "two")
    hosts("heal", "one", "two")


def reaches(lab: Lab, source: str, target: str, port: int = 22) -> bool:
    """Whether one host can open a connection to another; `-` is the lab's network itself."""
    program = f"import socket; socket.create_connection(({target!r}, {port}), 3).close()"
    words = ["exec", "--", "python3", "-c", program] if source == "-" else ["shell", source, "python3", "-"]
    return lab.attempt(*words, stdin=program).returncode == 0


def test_hosts_are_up_and_whole(hosts: Lab) -> None:
    for host in ("one", "two"):
        assert hosts.on(host, "systemctl is-system-running --wait || systemctl --failed") == "running"
        assert hosts.on(host, "hostname") == host
    ids = {hosts.on(host, "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub") for host in ("one", "two")}
    assert len(ids) == 2


def test_hosts_reach_each_other_by_name_and_nothing_else(hosts: Lab) -> None:
    assert reaches(hosts, "one", "two")
    assert reaches(hosts, "two", "one")
    assert reaches(hosts, "-", "198.51.100.11")
    for host in ("one", "two"):
        assert hosts.on(host, "ip -4 route") == hosts.on(host, "ip -4 route show 198.51.100.0/24")
        # An address that the machine itself has in another namespace.
        assert "unreachable" in hosts.attempt("shell", host, "ip", "route", "get", "192.0.2.2").stderr
    assert "default" not in hosts("exec", "--", "ip", "route")


def test_a_disk_is_one_as_on_bare_metal(hosts: Lab) -> None:
    by_uuid = hosts.on("one", f"readlink -f /dev/disk/by-uuid/$(blkid -s UUID -o value {DISK})")
    assert by_uuid == hosts.on("one", f"readlink -f {DISK}")
    assert hosts.on("one", "findmnt -n -o FSTYPE,SOURCE /srv/disk").split() == ["ext4", by_uuid]
    assert "vstack-lab-d2" in hosts.on("one", "ls /dev/disk/by-id")
    assert hosts.on("one", f"blockdev --getsize64 {DISK}") == str(300 << 20)
    # A direct write, and a direct read of what it wrote.
    hosts.on(
        "one",
        """
        head -c 8192 /dev/urandom >/tmp/blocks
        dd if=/tmp/blocks of=/srv/disk/direct bs=4096 oflag=direct conv=fsync status=none
        dd if=/srv/disk/direct bs=4096 iflag=direct status=none | cmp - /tmp/blocks
        """,
    )


def test_packages_come_without_a_network(hosts: Lab) -> None:
    hosts.on("two", "apt-get install -y -qq nftables >/dev/null 2>&1 && nft list ruleset")
    hosts.on("two", "nft add table inet t && nft list table inet t && nft delete table inet t")


def test_hardened_units_work(hosts: Lab) -> None:
    hardened = (
        "DynamicUser PrivateDevices PrivateTmp PrivateUsers PrivateIPC ProtectClock ProtectControlGroups "
        "ProtectHostname ProtectKernelLogs ProtectKernelModules ProtectKernelTunables MemoryDenyWriteExecute "
        "LockPersonality RestrictNamespaces RestrictRealtime RestrictSUIDSGID NoNewPrivileges"
    )
    settings = [f"{name}=yes" for name in hardened.split()]
    settings += ["ProtectSystem=strict", "ProtectHome=tmpfs", "ProtectProc=invisible", "ProcSubset=pid"]
    settings += ["SystemCallFilter=@system-service", "CapabilityBoundingSet=", "DevicePolicy=closed", "UMask=0077"]
    settings += ["LoadCredential=word:/root/word", "IPAddressDeny=any", "IPAddressAllow=localhost"]
    hosts.on("one", "echo secret >/root/word; chmod 600 /root/word")
    run = "systemd-run --quiet --wait --pipe " + " ".join(f"-p {setting}" for setting in settings)
    script = "id -u; cat $CREDENTIALS_DIRECTORY/word; grep Seccomp: /proc/self/status; touch /etc/x 2>&1 || true"
    uid, word, seccomp, touched = hosts.on("one", f"{run} sh -c '{script}'").splitlines()
    assert int(uid) > 60000
    assert word == "secret"
    assert seccomp.split() == ["Seccomp:", "2"]
    assert "Read-only file system" in touched
    # The address filter is enforced, and only where it was asked for.
    program = 'import socket; socket.create_connection((\\"two\\", 22), 2)'
    assert hosts.on("one", f'python3 -c "{program}"') == ""
    assert "denied" in hosts.on("one", f"{run} sh -c 'python3 -c \"{program}\" 2>/dev/null || echo denied'")


def test_the_machines_own_settings_are_out_of_reach(hosts: Lab) -> None:
    before = Path("/proc/sys/vm/swappiness").read_text()
    assert hosts.attempt("shell", "one", "echo 1 >/proc/sys/vm/swappiness").returncode != 0
    assert Path("/proc/sys/vm/swappiness").read_text() == before
    hosts.on("one", "echo 1 >/proc/sys/net/ipv4/ip_forward")
    assert hosts.on("two", "cat /proc/sys/net/ipv4/ip_forward") == "0"


def test_a_cut_cable(whole: Lab) -> None:
    whole("cut", "one")
    assert whole.state_of("one") == "cut"
    assert not reaches(whole, "two", "one")
    assert not reaches(whole, "-", "198.51.100.11")
    whole("heal", "one")
    await_condition(lambda: reaches(whole, "two", "one"), "the healed host is reached", FAR_SIDE_S)


def test_a_frozen_host_is_reached_and_does_not_answer(whole: Lab) -> None:
    whole("freeze", "one")
    assert whole.state_of("one") == "frozen"
    program = (
        "import socket; s = socket.create_connection(('one', 22), 3); s.settimeout(1)\n"
        "try: print(s.recv(1))\nexcept TimeoutError: print('silent')"
    )
    assert whole("shell", "two", "python3", "-", stdin=program).strip() == "silent"
    assert "frozen" in whole.attempt("reboot", "one").stderr
    whole("thaw", "one")
    assert whole.on("one", "echo awake") == "awake"


def test_a_power_cut_loses_what_was_not_flushed_and_nothing_else(whole: Lab) -> None:
    """The unflushed file is what makes the test able to fail: a proper shutdown would have written it."""
    before = boot_id(whole)
    whole.on(
        "one",
        """
        echo kept >/srv/disk/flushed
        sync /srv/disk/flushed /srv/disk
        head -c 3M /dev/urandom >/srv/disk/unflushed
        """,
    )
    whole("power-cut", "one")
    assert whole.state_of("one") == "off"
    assert not reaches(whole, "two", "one")
    assert "no power" in whole.attempt("freeze", "one").stderr
    whole("power-on", "one")
    assert boot_id(whole) != before
    assert whole.on("one", "cat /srv/disk/flushed") == "kept"
    assert whole.on("one", "stat -c %s /srv/disk/unflushed 2>/dev/null || echo 0") == "0"


def test_an_ordinary_shutdown_loses_nothing(whole: Lab) -> None:
    whole.on("one", "echo late >/srv/disk/late")
    whole("off", "one")
    assert whole.state_of("one") == "off"
    whole("off", "one")
    whole("power-on", "one")
    assert whole.on("one", "cat /srv/disk/late") == "late"


def test_reboots_by_the_lab_and_by_the_host(whole: Lab) -> None:
    first = boot_id(whole)
    whole("reboot", "one", "two")
    second = boot_id(whole)
    assert second != first
    assert whole.on("one", "findmnt -n -o FSTYPE /srv/disk") == "ext4"
    whole.attempt("shell", "one", "systemctl", "reboot")
    await_condition(lambda: boot_id(whole) not in {None, second}, "the host comes back by itself", 120)


def boot_id(lab: Lab) -> str | None:
    return lab.attempt("shell", "one", "cat", "/proc/sys/kernel/random/boot_id").stdout.strip() or None


def test_two_labs_do_not_meet(hosts: Lab) -> None:
    other = Lab(f"{hosts.name}-b"[:31])
    try:
        other("up", "one")
        assert other.on("one", "cat /etc/machine-id") != hosts.on("one", "cat /etc/machine-id")
        assert not reaches(other, "one", "198.51.100.12")
        other("down", "one")
        assert other("exec", "--", "echo", "still there") == "still there\n"
    finally:
        other("down")
    assert reaches(hosts, "one", "two")


def test_a_lab_that_was_interrupted_half_way(hosts: Lab) -> None:
    other = Lab(f"{hosts.name}-c"[:31])
    with subprocess.Popen(other.words("up", "one:1:100", "two"), stdout=subprocess.DEVNULL) as interrupted:
        await_condition(lambda: traces(other) != [], "something of the lab is there", FAR_SIDE_S)
        interrupted.kill()
    other("down")
    assert traces(other) == []


def test_a_lab_that_a_dead_machine_left(hosts: Lab) -> None:
    """What a restart of the machine takes: processes, mounts, loop devices, the namespace. The files stay."""
    other = Lab(f"{hosts.name}-d"[:31])
    try:
        other("up", "one:1:100")
        other.on("one", f"echo precious | dd of={DISK} oflag=sync status=none; echo here >/root/note; sync")
        lose_the_machine(other)
        assert other.state_of("one") == "off"
        assert "no power" in other.attempt("reboot", "one").stderr
        other("power-on", "one")
        assert other.on("one", f"head -c 8 {DISK}; cat /root/note") == "precioushere"
        lose_the_machine(other)
    finally:
        other("down")
    assert traces(other) == []


def lose_the_machine(lab: Lab) -> None:
    home = ROOT / ".lab/labs" / lab.name
    processes.kill(processes.with_argument(f"--directory={home}/hosts/one/root"))
    disks = disk.attached(home)
    disk.await_release(disks.values())
    disk.detach_all(home)
    run("umount", home / "hosts/one/root")
    run("ip", "netns", "delete", f"vstack-lab-{identifier(lab)}")
    shutil.rmtree(Path("/run/vstack-lab", identifier(lab)))


def test_down_leaves_nothing(hosts: Lab) -> None:
    """Last in this module: it takes the lab away, from under a program that runs in its network too."""
    namespace = Path("/run/netns", f"vstack-lab-{identifier(hosts)}")
    with subprocess.Popen(hosts.words("exec", "--", "cat"), stdin=subprocess.PIPE) as client:
        await_condition(lambda: is_inside(client.pid, namespace), "the client is in the lab's network", FAR_SIDE_S)
        assert {what for what, _ in traces(hosts)} == {"mount", "loop device", "cgroup", "run", "process"}
        hosts("down")
        assert client.wait() < 0
    assert traces(hosts) == []
    assert hosts.name not in hosts("list")
    hosts("down")


def is_inside(pid: int, namespace: Path) -> bool:
    return Path(f"/proc/{pid}/ns/net").stat().st_ino == namespace.stat().st_ino


def identifier(lab: Lab) -> str:
    return lab_id(ROOT / ".lab", lab.name)


def traces(lab: Lab) -> list[tuple[str, str]]:
    """All that this machine has of a lab, besides its files."""
    home, mark = f"/labs/{lab.name}/", identifier(lab)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    loops = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    commands = subprocess.run(
        ["ps", "-eww", "-o", "args"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return [
        *(("mount", line) for line in mounts if mark in line or home in line),
        *(("loop device", file) for file in loops if home in file),
        *(("cgroup", str(path)) for path in Path("/sys/fs/cgroup").glob(f"**/vstack-lab-{mark}")),
        *(("run", str(path)) for path in Path("/run").glob(f"vstack-lab/{mark}")),
        *(("run", str(path)) for path in Path("/run/systemd/nspawn/propagate").glob(f"{mark}-*")),
        *(("process", line) for line in commands if home in line),
    ]
