"""A person's own questions with the answers that are expected."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovfast.evaluate.corpus import read_jsonl
from ovfast.evaluate.prompts import Prompt, prompt_of, shown

__all__ = ["Graded", "GradedAnswer", "Question", "grade", "read_questions"]

_MATCHES = ("contains", "exact", "regex")


@dataclass(frozen=True)
class Question:
    """A line of the file."""

    line: int
    prompt: Prompt
    expected: list[str]
    """Any of them will do."""
    match: str
    """"contains", "exact" or "regex"."""

    def is_answered_by(self, answer: str) -> bool:
        """Whether an answer is one of those that are expected."""
        if self.match == "exact":
            return any(answer.strip() == one.strip() for one in self.expected)
        if self.match == "contains":
            return any(one in answer for one in self.expected)
        return any(re.search(one, answer, re.MULTILINE) for one in self.expected)


@dataclass(frozen=True)
class GradedAnswer:
    """One question, and what became of it; what needs an original is None without one."""

    line: int
    prompt: str
    expected: list[str]
    match: str
    answer: str
    correct: bool
    reference: str | None
    reference_correct: bool | None


@dataclass(frozen=True)
class Graded:
    """Over all questions; what needs an original is None without one."""

    questions: int
    correct: int
    accuracy: float
    reference_correct: int | None
    reference_accuracy: float | None
    answers: list[GradedAnswer]


def read_questions(path: str | Path) -> list[Question]:
    """Read a JSONL file of {"prompt" or "messages", "answer": text or list of texts, "match"}.

    "match" is "contains" (the default), "exact" (but for white space around) or "regex" (Python's,
    found anywhere; ^ and $ match at lines). Raises ValueError, with the line's number, for what is
    wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"'{path}' is not a file: expected JSON lines with prompts and answers")
    questions = [_question(path, number, item) for number, item in read_jsonl(path)]
    if not questions:
        raise ValueError(f"'{path}' holds no questions")
    return questions


def grade(
    questions: Sequence[Question], answers: Sequence[str], references: Sequence[str] | None
) -> Graded:
    """Compare answers, and the original's if there is one, with those expected."""
    graded = [
        GradedAnswer(
            line=question.line,
            prompt=shown(question.prompt),
            expected=question.expected,
            match=question.match,
            answer=answer,
            correct=question.is_answered_by(answer),
            reference=None if references is None else references[i],
            reference_correct=None
            if references is None
            else question.is_answered_by(references[i]),
        )
        for i, (question, answer) in enumerate(zip(questions, answers, strict=True))
    ]
    correct = sum(one.correct for one in graded)
    reference = None if references is None else sum(bool(one.reference_correct) for one in graded)
    return Graded(
        questions=len(graded),
        correct=correct,
        accuracy=correct / len(graded),
        reference_correct=reference,
        reference_accuracy=None if reference is None else reference / len(graded),
        answers=graded,
    )


def _question(path: Path, number: int, item: dict[str, Any]) -> Question:
    where = f"'{path}', line {number}"
    prompt = prompt_of(item, where)
    answer = item.get("answer")
    expected = [answer] if isinstance(answer, str) else answer
    if (
        not isinstance(expected, list)
        or not expected
        or not all(isinstance(one, str) and one for one in expected)
    ):
        raise ValueError(
            f"{where}: 'answer' must be text or a list of texts, none empty; got {answer!r}"
        )
    match = item.get("match", _MATCHES[0])
    if match not in _MATCHES:
        raise ValueError(f"{where}: 'match' must be one of {', '.join(_MATCHES)}; got {match!r}")
    if match == "regex":
        for one in expected:
            try:
                re.compile(one)
            except re.error as error:
                raise ValueError(f"{where}: {one!r} is no regular expression: {error}") from error
    return Question(number, prompt, expected, match)
