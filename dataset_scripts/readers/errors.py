"""The one error that tells a user what is wrong with a file and how to mend it."""

from __future__ import annotations

from pathlib import Path


class DataError(ValueError):
    """A problem of the user's data; `str()` is one line: "<where>: <field>: <problem>. <remedy>".

    Args:
        where: File or folder (or another name) that has the problem.
        field: What of it is wrong, e.g. "mask".
        problem: What is wrong.
        remedy: What the user can do.
    """

    def __init__(self, where: str | Path, field: str, problem: str, remedy: str) -> None:
        super().__init__(" ".join(f"{where}: {field}: {problem}. {remedy}".split()))
        self.where, self.field, self.problem, self.remedy = where, field, problem, remedy

    def __reduce__(self) -> tuple[type[DataError], tuple[str | Path, str, str, str]]:
        # Worker processes hand errors back by pickle, which would pass the joined line alone.
        return type(self), (self.where, self.field, self.problem, self.remedy)
