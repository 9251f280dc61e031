"""Small disks of their own, for one process: full ones and ones that cannot be written to."""

import ctypes
import os
import traceback

import pytest

from runs import ended, in_child

NEWNS, NEWUSER = 0x20000, 0x10000000
RDONLY, REMOUNT, REC, PRIVATE = 1, 32, 1 << 14, 1 << 18


def _call(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name} is refused")


def make_read_only(place):
    _call("mount", b"none", bytes(place), None, ctypes.c_ulong(REMOUNT | RDONLY), None)


def on_a_disk_of(n_bytes, place, work):
    """Run ``work`` in a process that has a disk of a size at ``place``, which is gone with it; skip where no disk can be had."""

    def inside():
        try:
            if os.getuid() == 0:
                _call("unshare", NEWNS)
            else:
                ids = os.getuid(), os.getgid()
                _call("unshare", NEWNS | NEWUSER)
                for name, text in zip(
                    ("setgroups", "uid_map", "gid_map"), ("deny", f"0 {ids[0]} 1", f"0 {ids[1]} 1"), strict=True
                ):
                    with open(f"/proc/self/{name}", "w") as file:
                        file.write(text)
            _call("mount", b"none", b"/", None, ctypes.c_ulong(REC | PRIVATE), None)
            _call("mount", b"none", bytes(place), b"tmpfs", ctypes.c_ulong(0), f"size={n_bytes}".encode())
        except (OSError, AttributeError):
            return 77
        try:
            work()
        except BaseException:
            said.write_text(traceback.format_exc())
            raise
        return 0

    said = place.with_name(f"{place.name}-said")
    place.mkdir(parents=True, exist_ok=True)
    code = ended(in_child(inside))
    if code == 77:
        pytest.skip("no disk can be mounted here")
    assert code == 0, said.read_text()


def free(place):
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def fill(place, left):
    """Leave so many bytes of a disk."""
    with open(place / ".ballast", "wb") as file:
        file.write(bytes(max(0, free(place) - left)))
