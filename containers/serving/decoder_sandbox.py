"""What the process that decodes one picture may do: compute, and write its answer.

The limits hold on Linux and, but for the memory, on macOS. The filter of system calls needs Linux
on x86-64 or ARM, and no privileges: it holds for root and for the image's user `model` alike.
"""

import ctypes
import errno
import os
import platform
import resource
import signal
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from containers.common.c_library import c_library

# Of processor time. The costliest picture that a person would send, 40 megapixels with a color
# profile in a PNG, takes 3 s on a slow core.
CPU_SECONDS = 5
# Beyond what the process has at its start: 40 megapixels in the most expensive format take 0.9 GB.
MEMORY_BYTES = 1 << 30
# Open files: the standard ones, the connection to the server, and a few that Python had before.
MAX_FILES = 16

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ERRNO = 0x00050000
CLONE_THREAD = 0x00010000

# Instructions of the classic Berkeley packet filter, in which seccomp(2) takes its filters.
LOAD_WORD = 0x20
JUMP_IF_EQUAL = 0x15
JUMP_IF_ANY_BIT = 0x45
RETURN = 0x06
# Where they find the system call: struct seccomp_data in linux/seccomp.h, little-endian.
NUMBER_OFFSET = 0
ARCHITECTURE_OFFSET = 4
FIRST_ARGUMENT_OFFSET = 16

# What decoding needs: memory, the connection, the clock, a thread for HEIC, the end. No file can be
# opened, no process started, no socket made, no signal sent to another process. The numbers are
# those of asm/unistd_64.h, and of asm-generic/unistd.h for ARM.
X86_64 = {
    "read": 0,
    "write": 1,
    "close": 3,
    "fstat": 5,
    "lseek": 8,
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "brk": 12,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "sched_yield": 24,
    "mremap": 25,
    "madvise": 28,
    "getpid": 39,
    "sendto": 44,
    "recvfrom": 45,
    "exit": 60,
    "getrusage": 98,
    "sigaltstack": 131,
    "gettid": 186,
    "futex": 202,
    "sched_getaffinity": 204,
    "restart_syscall": 219,
    "set_robust_list": 273,
    "rseq": 334,
    "clock_gettime": 228,
    "exit_group": 231,
    "getrandom": 318,
}
ARM_64 = {
    "lseek": 62,
    "read": 63,
    "write": 64,
    "close": 57,
    "fstat": 80,
    "exit": 93,
    "exit_group": 94,
    "futex": 98,
    "set_robust_list": 99,
    "clock_gettime": 113,
    "sched_getaffinity": 123,
    "sched_yield": 124,
    "restart_syscall": 128,
    "sigaltstack": 132,
    "rt_sigaction": 134,
    "rt_sigprocmask": 135,
    "rt_sigreturn": 139,
    "getrusage": 165,
    "getpid": 172,
    "gettid": 178,
    "sendto": 206,
    "recvfrom": 207,
    "brk": 214,
    "munmap": 215,
    "mremap": 216,
    "mmap": 222,
    "mprotect": 226,
    "madvise": 233,
    "getrandom": 278,
    "rseq": 293,
}


@dataclass(frozen=True)
class Architecture:
    """A kind of processor. audit: the kernel's constant for it, from linux/audit.h.

    allowed: the numbers of system calls. clone: the number of the call that starts a thread or a
    process.
    """

    audit: int
    allowed: dict[str, int]
    clone: int
    clone3: int = 435


# By the machine's name.
ARCHITECTURES = {
    "x86_64": Architecture(0xC000003E, X86_64, clone=56),
    "aarch64": Architecture(0xC00000B7, ARM_64, clone=220),
}


class Instruction(ctypes.Structure):
    """struct sock_filter."""

    _fields_ = (
        ("code", ctypes.c_ushort),
        ("if_true", ctypes.c_ubyte),
        ("if_false", ctypes.c_ubyte),
        ("value", ctypes.c_uint32),
    )


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(Instruction)))


def prepare() -> None:
    """Do what `enter` would repeat in each child, and choose them as the victims.

    The kernel ends this process and its children first when memory runs out.
    """
    c_library()
    system_call_filter()
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        # Not Linux, or a container that does not allow it
        return


def enter() -> None:
    """Give up for good what decoding does not need. What the system does not offer is left out."""
    if sys.platform == "linux":
        # The parent has one thread, so that this means the end of the process
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # No other process of this user reads this one's memory
        prctl(PR_SET_DUMPABLE, 0)
    limit(resource.RLIMIT_CPU, CPU_SECONDS)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_FSIZE, 0)
    limit(resource.RLIMIT_NOFILE, MAX_FILES)
    if sys.platform == "linux":
        limit(resource.RLIMIT_AS, address_space() + MEMORY_BYTES)
        filter_system_calls()
    else:
        # Linux would count threads, too, and those of the server
        limit(resource.RLIMIT_NPROC, 0)


def limit(kind: int, value: int) -> None:
    """Set a limit, soft and hard. One that is lower already stays."""
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def address_space() -> int:
    """Return this process's address space in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


def filter_system_calls() -> bool:
    """Let every system call fail that decoding does not need. Return whether that was possible."""
    program = system_call_filter()
    if program is None or prctl(PR_SET_NO_NEW_PRIVS, 1) != 0:
        return False
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program)) == 0


@cache
def system_call_filter() -> Program | None:
    """Return the filter for this machine; None if its system calls are not known here."""
    architecture = ARCHITECTURES.get(platform.machine())
    if architecture is None:
        return None
    instructions = assemble(architecture)
    array = (Instruction * len(instructions))(*instructions)
    return Program(len(instructions), array)


def assemble(architecture: Architecture) -> list[Instruction]:
    """Return the filter. What it does not allow fails with EPERM.

    A jump skips so many instructions. x86-64's second set of numbers, x32, is above all of these.
    """
    numbers = sorted(architecture.allowed.values())
    # Distances from the instruction after the last number
    fail, allow = 5, 6
    count = len(numbers)
    program = [
        Instruction(LOAD_WORD, 0, 0, ARCHITECTURE_OFFSET),
        Instruction(JUMP_IF_EQUAL, 0, count + 1 + fail, architecture.audit),
        Instruction(LOAD_WORD, 0, 0, NUMBER_OFFSET),
    ]
    for position, number in enumerate(numbers):
        program.append(Instruction(JUMP_IF_EQUAL, count - position - 1 + allow, 0, number))
    program += [
        # glibc takes clone instead, whose flags can be seen here
        Instruction(JUMP_IF_EQUAL, 3, 0, architecture.clone3),
        Instruction(JUMP_IF_EQUAL, 0, 3, architecture.clone),
        Instruction(LOAD_WORD, 0, 0, FIRST_ARGUMENT_OFFSET),
        Instruction(JUMP_IF_ANY_BIT, 2, 1, CLONE_THREAD),
        Instruction(RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.ENOSYS),
        Instruction(RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EPERM),
        Instruction(RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ]
    return program


def prctl(option: int, value: int, address: int = 0) -> int:
    """Call prctl(2). Return 0, or -1 if the kernel refuses."""
    unsigned = ctypes.c_ulong
    result: int = c_library().prctl(
        ctypes.c_int(option), unsigned(value), unsigned(address), unsigned(0), unsigned(0)
    )
    return result
