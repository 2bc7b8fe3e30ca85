"""What the kernel offers and Python does not: prctl, capset, seccomp, Landlock. Linux only.

Knows no policy: which calls and paths are allowed is said elsewhere.
"""

from __future__ import annotations

import ctypes
import os
import struct

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
SECCOMP_MODE_FILTER = 2
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""Landlock's calls, of one number on all architectures."""
CAPSET = {"x86_64": 126, "aarch64": 91}
CAPABILITY_VERSION_3 = 0x20080522
RULE_PATH_BENEATH = 1
ACCESS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights over files that a Landlock ABI can take away; an ABI between has those below it."""
READ_FILE, READ_DIR = 1 << 2, 1 << 3
NETWORK_RIGHTS, SCOPES = 0b11, 0b11  # bind and connect; abstract sockets and signals

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int = 0) -> None:
    """prctl(2) with one argument. Raises OSError."""
    _checked(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl {option}")


def drop_capabilities(machine: str) -> None:
    """No capabilities from now on; with no_new_privs there is no way back. Raises OSError."""
    header = struct.pack("<Ii", CAPABILITY_VERSION_3, 0)
    _checked(_libc.syscall(CAPSET[machine], header, bytes(24)), "capset")


def filter_pointer(program: bytearray) -> bytes:
    """What seccomp wants to be pointed at: a BPF program's length and place. The program must
    live, and keep its length."""
    place = ctypes.addressof(ctypes.c_char.from_buffer(program))
    return struct.pack("@HP", len(program) // 8, place)


def install_filter(pointer: bytes) -> None:
    """A seccomp filter over this thread, for good. Raises OSError."""
    _checked(_libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, pointer, 0, 0), "seccomp")


def landlock_abi() -> int:
    """The version of Landlock that runs here; 0 where there is none."""
    return max(0, int(_libc.syscall(CREATE_RULESET, None, 0, 1)))


def landlock_ruleset(abi: int, readable: list[str]) -> int:
    """A descriptor of rules: nothing but reading beneath `readable`; no network, no signals out of
    here where the ABI knows of them. Paths that are not there are left out. Raises OSError."""
    files = ACCESS_BY_ABI[max(known for known in ACCESS_BY_ABI if known <= abi)]
    parts = [files, NETWORK_RIGHTS if abi >= 4 else 0, SCOPES if abi >= 6 else 0]
    attributes = struct.pack("<QQQ", *parts)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    rules = int(_libc.syscall(CREATE_RULESET, attributes, len(attributes), 0))
    _checked(rules, "landlock_create_ruleset")
    for path in readable:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        rights = READ_FILE | READ_DIR if os.path.isdir(path) else READ_FILE  # noqa: PTH112
        rule = struct.pack("<Qi", rights, place)
        done = _libc.syscall(ADD_RULE, rules, RULE_PATH_BENEATH, rule, 0)
        os.close(place)
        _checked(done, f"landlock_add_rule {path}")
    return rules


def landlock_restrict(rules: int) -> None:
    """Hold this thread to a ruleset, for good. Raises OSError."""
    _checked(_libc.syscall(RESTRICT_SELF, rules, 0), "landlock_restrict_self")


def _checked(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
