"""A candidate's own process, after it is locked up: read the program, define it, call it.

Everything said here may be forged by the program, and is believed to be no more than its answer.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from typing import Any

from floodstage.programs.sandbox.values import Unsendable, decode, encode

FILE = "<candidate>"
LONGEST_MESSAGE = 300
BLOCK = 1 << 16
_line = json.JSONEncoder(separators=(",", ":")).encode


def run_candidate(descriptors: Sequence[int]) -> None:
    """Data job: descriptors are program, result. Split job: program, result, calls, answers."""
    program, result, *talk = descriptors
    job = json.loads(read_all(program))
    try:
        code = compile(job["source"], FILE, "exec", dont_inherit=True)
    except BaseException as error:
        say(result, {"unread": describe(error)})
        return
    try:
        space = _define(code)
        functions = [space[name] for name in job["entries"] if name in space]
        if not functions:
            raise NameError(f"the program defines no {' or '.join(job['entries'])}")
    except BaseException as error:
        say(result, {"undefined": describe(error)})
        return
    if talk:
        _answer_calls(space, *talk)
    else:
        for number, inputs in job["inputs"]:
            say(result, {"sample": number, **_outcome(functions[0], decode(inputs), {})})


def _define(code: types.CodeType) -> dict[str, Any]:
    """The global names of a program after it has run as a module."""
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module
    exec(code, module.__dict__)
    return module.__dict__


def _answer_calls(space: dict[str, Any], calls: int, answers: int) -> None:
    lines = Lines(calls)
    while (line := lines.next()) is not None:
        call = json.loads(line)
        args, named = decode(call["args"]), decode(call["named"])
        function = space.get(call["name"])
        outcome = _outcome(function, args, named)
        say(answers, {"call": call["call"], **outcome})


def _outcome(function: Callable[..., Any] | None, args: Any, named: Any) -> dict[str, Any]:
    """What a call comes to: a value, a value that cannot be sent, or an error."""
    try:
        if function is None:
            raise NameError("the program does not define what is called")
        return {"value": encode(function(*args, **named))}
    except Unsendable as error:
        return {"invalid": str(error)}
    except BaseException as error:
        return {"error": describe(error)}


def describe(error: BaseException) -> dict[str, Any]:
    """Type, message and line of an error; its own methods may fail."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    try:
        for frame in traceback.extract_tb(error.__traceback__, limit=-40):
            line = frame.lineno if frame.filename == FILE else line
        message = str(error)[:LONGEST_MESSAGE]
    except BaseException:
        message = ""
    return {"type": type(error).__name__[:100], "line": line or 0, "message": message}


def say(descriptor: int, value: dict[str, Any]) -> None:
    """One line of JSON, whole."""
    rest = memoryview(_line(value).encode() + b"\n")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def read_all(descriptor: int) -> bytes:
    """A pipe to its end. Without a file object, which would cost a child more than the reading."""
    blocks = []
    while block := os.read(descriptor, BLOCK):
        blocks.append(block)
    os.close(descriptor)
    return b"".join(blocks)


class Lines:
    """The lines that come out of a pipe, of `most_bytes` each. Without a file object as well."""

    def __init__(self, descriptor: int, most_bytes: int | None = None) -> None:
        self.descriptor, self.most_bytes = descriptor, most_bytes
        self.buffer = bytearray()

    def next(self) -> bytes | None:
        """The next one, None at the end. Raises OverflowError for one that is too long."""
        while (end := self.buffer.find(b"\n")) < 0:
            if self.most_bytes is not None and len(self.buffer) > self.most_bytes:
                raise OverflowError
            block = os.read(self.descriptor, BLOCK)
            if not block:
                return None
            self.buffer += block
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return line
