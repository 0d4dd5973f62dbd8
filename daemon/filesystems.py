"""Which file system a folder lies on, since changes made by other computers are not announced on network shares."""

import re
from dataclasses import dataclass
from pathlib import Path

# Also what clusters share, and virtual machines with their host: only this computer's own changes are announced.
_NETWORK_KINDS = {
    **dict.fromkeys(("nfs", "nfs4"), "NFS"),
    **dict.fromkeys(("cifs", "smb3", "smbfs"), "SMB"),
    "9p": "9P",  # also the Windows disks of WSL 2
    "drvfs": "WSL",  # those of WSL 1
    "afs": "AFS",
    "lustre": "Lustre",
    "gpfs": "GPFS",
    "beegfs": "BeeGFS",
    "ceph": "Ceph",
    "gfs2": "GFS2",
    "glusterfs": "GlusterFS",
    "ocfs2": "OCFS2",
    "virtiofs": "virtiofs",
    "vboxsf": "VirtualBox",
    "vmhgfs": "VMware",
    "prl_fs": "Parallels",
}

MOUNTS = Path("/proc/self/mountinfo")
"""The kernel's list of mounts, see https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html."""


@dataclass(frozen=True)
class FileSystem:
    """A mounted file system.

    Attributes:
        kind: `local`, the kind of network share such as `NFS` or `SMB`, `FUSE`, or `unknown` where this computer does
            not tell.
        type: As the kernel names it, such as `ext4` or `cifs`.
        mount_point: Where it is mounted.
    """

    kind: str
    type: str
    mount_point: Path

    @property
    def needs_polling(self) -> bool:
        """Whether files may appear without the kernel saying so."""
        return self.kind not in ("local", "unknown")


def file_system_of(path: Path, mounts: Path = MOUNTS) -> FileSystem:
    """Find the file system of a folder in the kernel's list of mounts."""
    return _seen_at(path.resolve(), _read(mounts))


def file_systems_within(folder: Path, mounts: Path = MOUNTS) -> list[FileSystem]:
    """Return the file system of a folder, and then those of the mounts below it that can be reached."""
    folder = folder.resolve()
    listed = _read(mounts)
    below = {mount.point for mount in listed if mount.point != folder and mount.point.is_relative_to(folder)}
    # What is mounted at a point is hidden where another file system was mounted over a folder above it.
    seen = [_seen_at(point, listed) for point in sorted(below)]
    return [_seen_at(folder, listed), *(system for system in seen if system.mount_point in below)]


@dataclass(frozen=True)
class _Mount:
    number: str
    parent: str
    point: Path
    type: str


def _read(mounts: Path) -> list[_Mount]:
    try:
        text = mounts.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # not Linux, or a container that hides it
        return []
    found = []
    for line in text.splitlines():
        place, _, kind = line.partition(" - ")  # a varying number of fields stands before it
        number, parent, _, _, escaped, *_ = place.split(" ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), escaped)
        found.append(_Mount(number, parent, Path(point), kind.split(" ")[0]))
    return found


def _seen_at(path: Path, mounts: list[_Mount]) -> FileSystem:
    """Go down a path from mount to mount, as the kernel does, so that one hidden by another is never met."""
    numbers = {mount.number for mount in mounts}
    on_the_way = [mount for mount in mounts if path.is_relative_to(mount.point)]
    mount = next((mount for mount in on_the_way if mount.parent not in numbers or mount.parent == mount.number), None)
    if mount is None:
        return FileSystem("unknown", "unknown", Path(path.anchor))
    while inner := [other for other in on_the_way if other.parent == mount.number and other != mount]:
        mount = min(inner, key=lambda other: len(other.point.parts))
    return FileSystem(_kind(mount.type), mount.type, mount.point)


def _kind(type_: str) -> str:
    # fuseblk is a local disk (NTFS, exFAT) through FUSE.
    if type_.startswith("fuse.") or type_ == "fuse":
        return "FUSE"
    return _NETWORK_KINDS.get(type_, "local")
