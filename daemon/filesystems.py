"""Which file system a folder lies on, since changes made by other computers are not announced on network shares."""

import re
from dataclasses import dataclass
from pathlib import Path

# Also what clusters share, and virtual machines with their host: only this computer's own changes are announced.
_NETWORK_KINDS = {
    **dict.fromkeys(("nfs", "nfs4"), "NFS"),
    **dict.fromkeys(("cifs", "smb3", "smbfs"), "SMB"),
    "9p": "9P",
    "afs": "AFS",
    "lustre": "Lustre",
    "gpfs": "GPFS",
    "beegfs": "BeeGFS",
    "ceph": "Ceph",
    "glusterfs": "GlusterFS",
    "virtiofs": "virtiofs",
    "vboxsf": "VirtualBox",
}


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


def file_system_of(path: Path, mounts: Path = Path("/proc/mounts")) -> FileSystem:
    """Find the file system of a folder in the kernel's list of mounts."""
    path = path.resolve()
    found = FileSystem("unknown", "unknown", Path(path.anchor))
    if not mounts.exists():
        return found
    for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        _, escaped, type_, *_ = line.split(" ")
        mount_point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), escaped))
        # Of two mounts on the same folder the later one is seen.
        if path.is_relative_to(mount_point) and len(mount_point.parts) >= len(found.mount_point.parts):
            found = FileSystem(_kind(type_), type_, mount_point)
    return found


def _kind(type_: str) -> str:
    # fuseblk is a local disk (NTFS, exFAT) through FUSE.
    if type_.startswith("fuse.") or type_ == "fuse":
        return "FUSE"
    return _NETWORK_KINDS.get(type_, "local")
