"""Programs as they come, each with its form, and a verdict already where it need not run.

Too long, no Python, or the same as an earlier program of its task: those are decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from floodstage.core.spans import Spans
from floodstage.programs.records import Candidate, Kind, Verdict
from floodstage.programs.stages.memory import forgets
from floodstage.programs.stages.normal import SHARED, Form, Unreadable, normal_form, parse

LONGEST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Prepared:
    """A candidate that is to run, or one that has its `verdict` before it runs."""

    candidate: Candidate
    form: Form | None = None
    verdict: Verdict | None = None
    forgets: bool = False  # its samples may run in processes of their own

    @property
    def form_note(self) -> str:
        """How the program was looked at: shared, or why it is raw."""
        return "" if self.form is None else self.form.reason or SHARED


def prepare(
    candidates: Iterable[Candidate],
    libraries: Mapping[str, frozenset[str]],
    spans: Spans,
    *,
    longest_bytes: int = LONGEST_BYTES,
    find_duplicates: bool = True,
    keep_forms: bool = True,
) -> Iterator[Prepared]:
    """Each candidate in turn, with its form where duplicates are looked for or `keep_forms`.
    `libraries` are preloaded modules of pure names."""
    texts: dict[tuple[str, str | None, str], str] = {}
    forms: dict[tuple[str, str | None, str], str] = {}
    for candidate in candidates:
        about = (candidate.task_id, candidate.entry)
        with spans("filter"):
            early = _filter(candidate, longest_bytes)
            earlier = texts.setdefault((*about, candidate.digest), candidate.id)
        if early is None and earlier != candidate.id and find_duplicates:
            early = _duplicate(candidate, earlier, "the same text")
        if early is not None:
            yield Prepared(candidate, verdict=early)
            continue
        try:
            with spans("parse"):
                tree = parse(candidate.source)
        except Unreadable as error:
            yield Prepared(candidate, verdict=_syntax(candidate, error))
            continue
        with spans("form"):
            forgetful = forgets(tree, libraries)
            form = verdict = None
            if find_duplicates or keep_forms:
                form = normal_form(candidate.source, tree, libraries)
            if find_duplicates and form is not None:
                earlier = forms.setdefault((*about, form.key), candidate.id)
                if earlier != candidate.id:
                    verdict = _duplicate(candidate, earlier, "the same form")
            prepared = Prepared(candidate, form, verdict, forgetful)
        yield prepared


def _filter(candidate: Candidate, longest_bytes: int) -> Verdict | None:
    """What the text alone decides."""
    size = len(candidate.source.encode("utf-8", "surrogatepass"))
    why = ""
    if size > longest_bytes:
        why = f"the source has {size} bytes, more than the {longest_bytes} allowed"
    elif not candidate.source.strip():
        why = "the source is empty"
    return Verdict(candidate.id, candidate.task_id, Kind.SYNTAX, why) if why else None


def _syntax(candidate: Candidate, error: Unreadable) -> Verdict:
    return Verdict(candidate.id, candidate.task_id, Kind.SYNTAX, str(error), line=error.line)


def _duplicate(candidate: Candidate, earlier: str, why: str) -> Verdict:
    return Verdict(
        candidate.id, candidate.task_id, Kind.DUPLICATE, f"{why} as {earlier}", duplicate_of=earlier
    )
