"""From how a process ended, or what it said, to a trial. Believes no more than it must."""

from __future__ import annotations

import json
import signal
from typing import Any

from floodstage.programs.records import Kind
from floodstage.programs.sandbox.ward import Ward

Trial = dict[str, Any]
"""Keyword arguments of `records.Trial`."""


def ending(ward: Ward) -> Trial:
    """The trial of a program that ended, or was ended, before it gave what was asked for."""
    limits = ward.limits
    match ward.over:
        case "cpu":
            return trial(Kind.TIMEOUT, f"more than {limits.cpu_s:g} s of CPU time")
        case "idle":
            return trial(Kind.TIMEOUT, f"idle for {limits.idle_s:g} s")
        case "output":
            return trial(Kind.OUTPUT_LIMIT, f"printed more than {limits.output_bytes} bytes")
        case "result":
            return trial(Kind.OUTPUT_LIMIT, f"a value of more than {limits.result_bytes} bytes")
        case "protocol":
            return trial(Kind.INVALID_OUTPUT, "it wrote to the pipe of results by itself")
    status = ward.ended.status if ward.ended else 0
    if status == -signal.SIGXCPU:
        return trial(Kind.TIMEOUT, "the kernel's limit of CPU time")
    if status == -signal.SIGKILL and ward.zygote.out_of_memory():
        return trial(Kind.MEMORY, "killed by the kernel, which was out of memory", signal=-status)
    if status < 0:
        return trial(Kind.CRASH, f"killed by {signal.Signals(-status).name}", signal=-status)
    return trial(Kind.CRASH, f"exited with status {status} before it gave a result")


def failure(error: Any, kind: Kind = Kind.EXCEPTION) -> Trial:
    """The trial of an error that a candidate's process described; malformed ones too."""
    try:
        name, line = str(error["type"])[:100], int(error["line"])
        message = str(error["message"])[:300]
    except (TypeError, KeyError, ValueError):
        return trial(Kind.INVALID_OUTPUT, "a malformed error")
    if name == "MemoryError" and kind is Kind.EXCEPTION:
        kind = Kind.MEMORY
    return trial(kind, f"{name}: {message}" if message else name, error=name, line=line)


def told(line: bytes, sample: int) -> Trial | None:
    """The trial of one line of a data job; None where it is not the line of this sample."""
    try:
        word = json.loads(line)
        if not isinstance(word, dict) or word.get("sample") != sample:
            return None
    except (ValueError, RecursionError):
        return None
    if "value" in word:
        output = json.dumps(word["value"], separators=(",", ":"))
        return trial(Kind.PASSED, output=output)  # to be judged
    if "invalid" in word:
        return trial(Kind.INVALID_OUTPUT, str(word["invalid"])[:300])
    return failure(word.get("error"))


def undefined(line: bytes) -> Trial | None:
    """The trial of a program that could not be read or defined; None for any other line."""
    try:
        word = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(word, dict) and "unread" in word:
        return failure(word["unread"], Kind.SYNTAX)
    if isinstance(word, dict) and "undefined" in word:
        return failure(word["undefined"])
    return None


def trial(kind: Kind, detail: str = "", **more: Any) -> Trial:
    return {"kind": kind.value, "detail": detail, **more}
