"""Problems with checks: HumanEval and MBPP, as JSONL or as one JSON list, plain or gzipped."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from pathlib import Path

from floodstage.core.errors import InputError
from floodstage.programs.inputs.files import Row, field_of, json_of, rows_of, texts_of
from floodstage.programs.records import CheckTask


def read_problems(path: Path) -> Iterator[CheckTask]:
    """The problems of a file in order, each recognised by its columns. Raises InputError."""
    for where, row in _rows(path):
        if "entry_point" in row:
            yield _humaneval(row, where)
        elif "test_list" in row:
            yield _mbpp(row, where)
        else:
            raise InputError(
                f"{where} is no problem: expected 'entry_point' (HumanEval) or 'test_list' (MBPP), "
                f"got {', '.join(sorted(row)) or 'nothing'}."
            )


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        yield from rows_of(path)
        return
    rows = json_of(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{str(path)!r} must be a JSON list of objects.")
    for number, row in enumerate(rows):
        yield f"{str(path)!r} [{number}]", row


def _humaneval(row: Row, where: str) -> CheckTask:
    prompt: str = field_of(row, "prompt", str, where)
    checks: str = field_of(row, "test", str, where)
    entry: str = field_of(row, "entry_point", str, where)
    _parsed(checks, "'test'", where)
    answer = row.get("canonical_solution")
    return CheckTask(
        id=field_of(row, "task_id", str, where),
        prompt=prompt,
        checks=checks,
        entries=(entry,),
        calls_check=True,
        answer=prompt + answer if isinstance(answer, str) else "",
    )


def _mbpp(row: Row, where: str) -> CheckTask:
    """Its checks are bare assertions; what they call and nobody defines is the candidate's. A model
    is shown them with the text, as is usual, and answers with a whole program: it follows no
    prompt, so that nothing of them is in a candidate."""
    name = row.get("task_id")
    if not isinstance(name, int | str):
        raise InputError(f"{where}: 'task_id' must be a number or a string, got {name!r}.")
    setup = row.get("test_setup_code") or "\n".join(texts_of(row, "test_imports", where))
    if not isinstance(setup, str):
        raise InputError(f"{where}: 'test_setup_code' must be a string.")
    tests = texts_of(row, "test_list", where)
    checks = "\n".join([setup, *tests])
    if not (entries := _called(_parsed(checks, "the tests", where))):
        raise InputError(f"{where}: the tests call no function of a candidate.")
    answer, text = row.get("code"), row.get("text") or row.get("prompt")
    asked = [text, *tests] if isinstance(text, str) else []
    return CheckTask(
        id=str(name),
        prompt="",
        checks=checks,
        entries=entries,
        calls_check=False,
        answer=answer if isinstance(answer, str) else "",
        question="\n".join(['"""', *asked, '"""', ""]) if asked else "",
    )


def _parsed(code: str, what: str, where: str) -> ast.Module:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{where}: {what} is not Python: {error}.") from error


def _called(tree: ast.Module) -> tuple[str, ...]:
    """Names that are called and that neither Python nor the tests define, in order."""
    known = set(dir(builtins))
    called: dict[str, None] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom():
                known |= {(a.asname or a.name).partition(".")[0] for a in node.names}
            case ast.FunctionDef() | ast.ClassDef():
                known.add(node.name)
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                known.add(name)
            case ast.Call(func=ast.Name(id=name)):
                called[name] = None
    return tuple(name for name in called if name not in known)
