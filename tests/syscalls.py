"""Processes that are killed at a system call of choice, by ptrace; x86_64 Linux, where tracing is allowed."""

import ctypes
import os
import platform
import signal

from runs import ended, in_child

TRACEME, GETREGS, SYSCALL, SETOPTIONS = 0, 12, 24, 0x4200
TRACESYSGOOD, EXITKILL = 1, 1 << 20
ORIG_RAX = 15  # of struct user_regs_struct, in words
# What changes a file system, or fails to: before any other call it is as it was before the next of these.
CALLS = {
    "write": 1,
    "open": 2,
    "close": 3,
    "pwrite64": 18,
    "writev": 20,
    "sendfile": 40,
    "fsync": 74,
    "fdatasync": 75,
    "truncate": 76,
    "ftruncate": 77,
    "rename": 82,
    "mkdir": 83,
    "rmdir": 84,
    "creat": 85,
    "link": 86,
    "unlink": 87,
    "symlink": 88,
    "chmod": 90,
    "fchmod": 91,
    "openat": 257,
    "mkdirat": 258,
    "unlinkat": 263,
    "renameat": 264,
    "linkat": 265,
    "symlinkat": 266,
    "fchmodat": 268,
    "fallocate": 285,
    "pwritev": 296,
    "renameat2": 316,
    "copy_file_range": 326,
    "pwritev2": 328,
    "openat2": 437,
}
NAMES = {number: name for name, number in CALLS.items()}


def _ptrace(request, process=0, address=None, data=None):
    call = ctypes.CDLL(None, use_errno=True).ptrace
    call.restype, call.argtypes = ctypes.c_long, [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if call(request, process, address, data) == -1:
        raise PermissionError(ctypes.get_errno(), "ptrace is refused")


def why_not():
    """The reason for which processes cannot be traced here; empty where they can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"ptrace is used on x86_64 Linux, this is {platform.machine()} {platform.system()}"
    try:
        killed_at(1, lambda: None)
    except PermissionError as error:
        return str(error)
    return ""


def killed_at(number, work):
    """Run ``work`` in a process that is killed before the ``number``-th of its ``CALLS``: its exit code, and that call's name; "" if it
    ends before.
    """

    def traced():
        _ptrace(TRACEME)
        os.kill(os.getpid(), signal.SIGSTOP)
        return work()

    child, seen, entering = in_child(traced), 0, True
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status):
        raise PermissionError(1, "ptrace is refused")
    _ptrace(SETOPTIONS, child, data=TRACESYSGOOD | EXITKILL)
    passed = 0  # a signal that goes on to the process
    while True:
        _ptrace(SYSCALL, child, data=passed)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) or os.WIFEXITED(status):
            return os.waitstatus_to_exitcode(status), ""
        passed = 0 if os.WSTOPSIG(status) == signal.SIGTRAP | 0x80 else os.WSTOPSIG(status)
        if passed:
            continue
        if entering:
            registers = (ctypes.c_ulonglong * 27)()
            _ptrace(GETREGS, child, data=ctypes.addressof(registers))
            if registers[ORIG_RAX] in NAMES:
                seen += 1
                if seen == number:
                    os.kill(child, signal.SIGKILL)
                    return ended(child), NAMES[registers[ORIG_RAX]]
        entering = not entering
