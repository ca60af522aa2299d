"""Files of a candidate's scratch folder that outlive one of its processes: kernels compiled ahead, and what it builds when it is loaded.

All of it runs in the candidate's confined process. The judge hands descriptors on and never looks into them.
"""

from __future__ import annotations

import contextlib
import json
import os
import tarfile
from collections.abc import Iterator

KEPT_BYTES, KEPT_FILES = 64 << 20, 4096
"""What a candidate builds when it is loaded is kept up to so much; beyond that nothing of it is."""
KERNELS = "kernels"
_NOT_KEPT = ("candidate.py", "__pycache__", KERNELS)


def take_kernels(folder: int, kept_at: str, into: str) -> None:
    """Copy what the build compiled ahead, in the form of Triton's cache, from an open folder to where Triton will look, and close it.
    Triton's cache names its files by absolute paths; the build wrote those of `kept_at`."""
    os.environ["TRITON_CACHE_DIR"] = into
    for root, _, names, at in os.fwalk(".", dir_fd=folder):
        os.makedirs(os.path.join(into, root), exist_ok=True)
        for name in names:
            with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=at), "rb") as file:
                content = file.read()
            if name.startswith("__grp__"):
                content = content.replace(json.dumps(kept_at)[1:-1].encode(), json.dumps(into)[1:-1].encode())
            with open(os.path.join(into, root, name), "wb") as copy:
                copy.write(content)
    os.close(folder)


def keep(folder: str, into: int) -> None:
    """Write the regular files below a folder to a descriptor as an archive, and close it; nothing if they are too many or too large."""
    found = list(_files(folder))
    with os.fdopen(into, "wb") as file:
        if found and len(found) <= KEPT_FILES and sum(size for _, size in found) <= KEPT_BYTES:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for path, _ in found:
                    archive.add(path, os.path.relpath(path, folder), recursive=False)


def _files(folder: str) -> Iterator[tuple[str, int]]:
    """Regular files with their sizes; not those of other file systems, which are no part of the candidate's scratch."""
    device = os.stat(folder).st_dev
    for root, folders, names in os.walk(folder):
        if root == folder:
            folders[:] = [name for name in folders if name not in _NOT_KEPT]
            names = [name for name in names if name not in _NOT_KEPT]
        folders[:] = [name for name in folders if os.lstat(os.path.join(root, name)).st_dev == device]
        for path in (os.path.join(root, name) for name in names):
            with contextlib.suppress(OSError):
                about = os.lstat(path)
                if os.path.isfile(path) and not os.path.islink(path) and about.st_nlink == 1:
                    yield path, about.st_size


def put_back(archive: int, folder: str) -> None:
    """Write the files of an archive into a folder, with the times that they had, and close the descriptor."""
    with os.fdopen(archive, "rb") as file, tarfile.open(fileobj=file) as packed:
        for member in packed:
            path = os.path.normpath(os.path.join(folder, member.name))
            if not member.isreg() or not path.startswith(folder.rstrip("/") + "/"):
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            content = packed.extractfile(member)
            assert content is not None
            with open(path, "wb") as copy:
                copy.write(content.read())
            os.chmod(path, member.mode & 0o700)
            os.utime(path, (member.mtime, member.mtime))
