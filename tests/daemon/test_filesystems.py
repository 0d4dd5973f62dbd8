"""Which file systems announce what comes: told from the kernel's own list of mounts."""

import logging
from pathlib import Path

import pytest

from daemon.filesystems import FileSystem, file_system_of, file_systems_within
from daemon.sources import directory, folder_watch
from daemon.sources.folder_watch import FolderWatch
from tests.daemon.watching import Watching

# As written by the kernel (5.15); the names, and the shares, are made up.
MOUNTINFO = r"""22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
23 22 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:13 - proc proc rw
40 22 259:3 / /data rw,relatime shared:30 - xfs /dev/nvme0n1p3 rw
41 40 0:45 / /data/camera\040PC\134k2 rw,relatime shared:31 - cifs //camera-pc/data rw,vers=3.0,username=tem
42 40 0:46 / /data/archive rw,relatime shared:32 master:7 propagate_from:2 - nfs4 server:/archive rw,vers=4.2
43 42 259:3 /scratch /data/archive/scratch rw,relatime - xfs /dev/nvme0n1p3 rw
44 22 0:46 /2024 /home/tem/linked rw,relatime shared:32 - nfs4 server:/archive/2024 rw,vers=4.2
45 22 0:47 / /mnt/sshfs rw,nosuid,nodev,relatime - fuse.sshfs tem@camera: rw,user_id=1000
46 22 8:17 / /media/usb rw,relatime - fuseblk /dev/sdb1 rw,user_id=0
47 22 0:48 / /mnt/c rw,noatime - 9p C:\134 rw,dirsync,aname=drvfs;path=C:\
48 22 0:49 / /mnt/d rw,noatime - drvfs D: rw
49 22 0:50 / /host rw,relatime - virtiofs share rw
50 22 0:51 / /over rw,relatime - nfs server:/old rw
51 50 259:4 / /over rw,relatime - ext4 /dev/nvme0n1p4 rw
52 22 0:52 / /hidden/below rw,relatime - nfs server:/below rw
53 22 259:5 / /hidden rw,relatime - ext4 /dev/nvme0n1p5 rw
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTINFO)
    return file


@pytest.mark.parametrize(
    ("path", "kind", "mount_point"),
    [
        ("/srv/incoming", "local", "/"),
        ("/data", "local", "/data"),
        ("/database", "local", "/"),  # not below /data
        (r"/data/camera PC\k2/day 1", "SMB", r"/data/camera PC\k2"),
        ("/data/archive/2024", "NFS", "/data/archive"),
        ("/data/archive/scratch/today", "local", "/data/archive/scratch"),  # a bind mount of the local disk
        ("/home/tem/linked", "NFS", "/home/tem/linked"),  # a bind mount of the share
        ("/mnt/sshfs/deep/er", "FUSE", "/mnt/sshfs"),
        ("/media/usb", "local", "/media/usb"),
        ("/mnt/c/Users", "9P", "/mnt/c"),
        ("/mnt/d", "WSL", "/mnt/d"),
        ("/host", "virtiofs", "/host"),
        ("/over/here", "local", "/over"),  # mounted over the share that was there before
        ("/hidden/below", "local", "/hidden"),  # the share was mounted first, and cannot be reached any more
    ],
)
def test_the_file_system_of_a_folder(mounts: Path, path: str, kind: str, mount_point: str) -> None:
    found = file_system_of(Path(path), mounts)
    assert (found.kind, found.mount_point) == (kind, Path(mount_point))
    assert found.needs_polling == (kind != "local")


def test_what_is_mounted_below_a_folder(mounts: Path) -> None:
    within = file_systems_within(Path("/data"), mounts)
    assert [(system.kind, system.mount_point) for system in within] == [
        ("local", Path("/data")),
        ("NFS", Path("/data/archive")),
        ("local", Path("/data/archive/scratch")),
        ("SMB", Path(r"/data/camera PC\k2")),
    ]
    assert [system.kind for system in file_systems_within(Path("/hidden"), mounts)] == ["local"]


def test_where_the_kernel_does_not_tell(tmp_path: Path) -> None:
    found = file_system_of(tmp_path, tmp_path / "no such file")
    assert found.kind == "unknown"
    assert not found.needs_polling


def test_this_computer_has_a_root() -> None:
    assert file_system_of(Path("/")).mount_point == Path("/")
    assert file_system_of(Path("/proc")).type == "proc"


@pytest.mark.parametrize("type_", ["lustre", "gpfs", "beegfs", "ceph", "glusterfs", "virtiofs", "vboxsf", "smb3"])
def test_shares_of_clusters_and_virtual_machines_are_polled(tmp_path: Path, type_: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 259:2 / / rw - ext4 /dev/sda rw\n23 22 0:9 / {tmp_path} rw - {type_} share rw\n")
    assert file_system_of(tmp_path / "incoming", mounts).needs_polling


# --- what a source makes of it ----------------------------------------------------------------------------------------

LOCAL = FileSystem("local", "ext4", Path("/"))
SHARE = FileSystem("NFS", "nfs4", Path("/data/archive"))


@pytest.mark.parametrize(("within", "hears_everything"), [([LOCAL], True), ([SHARE], False), ([LOCAL, SHARE], False)])
def test_a_folder_with_a_share_in_it_is_polled_and_the_log_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    within: list[FileSystem],
    hears_everything: bool,
) -> None:
    monkeypatch.setattr(folder_watch, "file_systems_within", lambda _folder: within)
    with caplog.at_level(logging.INFO), FolderWatch(tmp_path) as watch:
        assert watch.hears_everything == hears_everything
    if hears_everything:
        assert "is watched" in caplog.text
    else:
        assert "is listed every second: /data/archive is on NFS (nfs4)" in caplog.text


def test_a_share_mounted_while_the_daemon_runs_is_polled_from_then_on(
    watching: Watching, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    within = [LOCAL]
    monkeypatch.setattr(folder_watch, "file_systems_within", lambda _folder: list(within))
    monkeypatch.setattr(directory, "RESCAN_SECONDS", 0.1)
    source = watching.new_source()
    with FolderWatch(watching.folder) as watch:
        source._identity = directory._identity(watching.folder)
        assert list(source._rescan(watch)) == []
        assert watch.hears_everything
        within.append(SHARE)
        with caplog.at_level(logging.INFO):
            assert list(source._rescan(watch)) == []
        assert not watch.hears_everything
    assert "is on NFS" in caplog.text
