"""The process of the checks: it never loads a candidate, it asks the candidates' processes.

One process serves some programs, one after the other, by a pair of pipes for each: checks are
trusted, and begin with nothing but the library and the same random numbers.

Each name that the checks call is a proxy: arguments go out as JSON, the answer comes back as JSON
and is rebuilt from plain builtins. So what an answer is compared with, and by which `==`, is
nothing that a candidate can reach. Checks and prompt are trusted; answers are not.
"""

from __future__ import annotations

import builtins
import functools
import gc
import json
import os
import random
import traceback
import types
from collections.abc import Callable, Sequence
from typing import Any

from floodstage.programs.sandbox.candidate import Lines, say
from floodstage.programs.sandbox.values import Malformed, Unsendable, decode, encode

FILE = "<checks>"


class Gone(BaseException):
    """The candidate's process does not answer any more."""


class Refused(BaseException):
    """An answer is no plain data, or none of ours; the kind and why."""


def run_checks(descriptors: Sequence[int]) -> None:
    """Descriptors are programs, result, and calls, answers of each candidate. For each line of
    programs says one: what the checks found."""
    programs, result, *talk = descriptors
    lines = Lines(programs)
    for calls, answers in zip(talk[::2], talk[1::2], strict=True):
        if (line := lines.next()) is None:
            return
        job = json.loads(line)
        gc.collect()  # the names of the last checks are a cycle, which holds all their answers
        random.seed(0)
        verdict = _verdict(job, Peer(calls, answers, job["result_bytes"]))
        os.close(calls)
        os.close(answers)
        say(result, {"checked": verdict})


@functools.lru_cache(maxsize=8)
def _compiled(text: str) -> types.CodeType:
    return compile(text, FILE, "exec", dont_inherit=True)


def _verdict(job: dict[str, Any], peer: Peer) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "checks"}
    proxies = {name: peer.function(name) for name in job["entries"]}
    try:
        exec(_compiled(job["prompt"]), space)
        space.update(proxies)
        exec(_compiled(job["checks"]), space)
        if job["calls_check"]:
            space["check"](proxies[job["entries"][0]])
        return {"kind": "passed"}
    except Gone:
        return {"kind": "gone"}
    except Refused as why:
        kind, detail = why.args
        return {"kind": kind, "detail": detail}
    except BaseException as error:
        if error is peer.raised:
            return {"kind": "exception", **peer.raised_by}
        kind = "exhausted" if isinstance(error, MemoryError) else "wrong"
        return {"kind": kind, "detail": _where(error)}


def _where(error: BaseException) -> str:
    """The assertion or error, and its line in the checks."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == FILE]
    message = f"{type(error).__name__} in line {lines[-1] if lines else 0} of the checks"
    text = str(error)[:200]
    return f"{message}: {text}" if text else message


class Peer:
    """The candidate's process, seen from here."""

    def __init__(self, calls: int, answers: int, most_bytes: int) -> None:
        self.calls, self.answers = calls, Lines(answers, most_bytes)
        self.count = 0
        self.raised: BaseException | None = None
        self.raised_by: dict[str, Any] = {}

    def function(self, name: str) -> Callable[..., Any]:
        """A proxy for one of the candidate's functions."""

        def proxy(*args: Any, **named: Any) -> Any:
            return self._call(name, args, named)

        proxy.__name__ = name
        return proxy

    def _call(self, name: str, args: Any, named: Any) -> Any:
        self.count += 1
        try:
            call = {"args": encode(args), "named": encode(named)}
        except Unsendable as why:
            raise Refused(
                "not_run", f"the checks call {name} with what is no data: {why}"
            ) from None
        try:
            say(self.calls, {"call": self.count, "name": name, **call})
        except OSError:
            raise Gone from None
        return self._value(self._line())

    def _value(self, line: bytes) -> Any:
        try:
            answer = json.loads(line)
            if not isinstance(answer, dict) or answer.pop("call", None) != self.count:
                raise Malformed("not the answer to this call")
            ((kind, content),) = answer.items()
            if kind == "value":
                return decode(content)
            if kind == "invalid":
                raise Refused("invalid_output", str(content)[:200])
            error: dict[str, Any] = {
                "error": str(content["type"])[:100],
                "line": int(content["line"]),
                "detail": str(content["message"])[:300],
            }
        except (Malformed, ValueError, TypeError, KeyError, RecursionError, OverflowError) as why:
            raise Refused("invalid_output", f"a malformed answer: {str(why)[:100]}") from None
        self.raised_by, self.raised = error, _rebuilt(error["error"], error["detail"])
        raise self.raised

    def _line(self) -> bytes:
        try:
            line = self.answers.next()
        except OverflowError:
            most_bytes = self.answers.most_bytes
            raise Refused("output_limit", f"a value of more than {most_bytes} bytes") from None
        if line is None:
            raise Gone
        return line


def _rebuilt(name: str, message: str) -> BaseException:
    """The builtin exception of that name, so that checks may expect it; else a plain one."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(message)
        except TypeError:  # UnicodeError and its like want more
            pass
    return RuntimeError(f"{name}: {message}")
