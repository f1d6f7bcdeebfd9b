"""What happens to rows that cannot be trained on: named, counted, or refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from swift_jupyter.engine.data.formats import accepted_shapes, to_conversation
from swift_jupyter.engine.data.rows import Conversation, RowProblem, SourceRow, UnusableRow
from swift_jupyter.errors import UserError, did_you_mean
from swift_jupyter.i18n import translate as _

NAMED_PROBLEMS = 5  # More would hide the rest of the output.


def screen(
    rows: Sequence[SourceRow],
    dataset: str,
    columns: Mapping[str, str] | None = None,
    strict: bool = False,
) -> tuple[list[Conversation], list[RowProblem]]:
    """Bring all rows into the canonical form.

    Parameters
    ----------
    rows : sequence of SourceRow
        What was read; at least one row.
    dataset : str
        The data set's name, for messages.
    columns : mapping, optional
        Old column names to new ones.
    strict : bool
        Refuse the data set at its first bad row.

    Returns
    -------
    tuple
        The good rows, and the problems of the others.

    Raises
    ------
    UserError
        When every row is bad, a column of `columns` is in no row, or a row is
        bad and `strict` is set.
    """
    _check_columns(rows, dataset, columns or {})
    conversations: list[Conversation] = []
    problems: list[RowProblem] = []
    for row in rows:
        try:
            conversations.append(to_conversation(row, columns))
        except UnusableRow as error:
            problem = RowProblem(row.origin, str(error), row.content)
            if strict:
                raise refusal(problem) from None
            problems.append(problem)
    if not conversations:
        raise nothing_left(dataset, problems, accepted_shapes())
    return conversations, problems


def refusal(problem: RowProblem) -> UserError:
    """Return the error that ends a strict run."""
    return UserError(
        _("A row cannot be trained on: {problem}.", problem=problem),
        _("With strict, one bad row stops the work."),
        _("Mend the row, or leave strict out to drop such rows."),
    )


def nothing_left(dataset: str, problems: Sequence[RowProblem], hint: str) -> UserError:
    """Return the error for a data set of which every row is bad."""
    return UserError(
        _(
            "No row of {dataset} can be trained on; {count} were read.",
            count=len(problems),
            dataset=dataset,
        ),
        "; ".join(str(problem) for problem in problems[:NAMED_PROBLEMS]) + ".",
        hint,
    )


def problem_notices(problems: Sequence[RowProblem], total: int) -> list[str]:
    """Return the lines that tell how many of `total` rows were left out, and why."""
    if not problems:
        return []
    lines = [
        _(
            "{count} of {total} rows cannot be trained on and were left out:",
            count=len(problems),
            total=total,
        ),
        *(f"  {problem}" for problem in problems[:NAMED_PROBLEMS]),
    ]
    if len(problems) > NAMED_PROBLEMS:
        lines.append("  " + _("and {count} more", count=len(problems) - NAMED_PROBLEMS))
    return lines


def _check_columns(rows: Iterable[SourceRow], dataset: str, columns: Mapping[str, str]) -> None:
    if not columns:
        return
    present = {name.lower(): name for row in rows for name in row.content}
    for name in columns:
        if name.lower() not in present:
            raise UserError(
                _("There is no column '{name}' in {dataset}.", name=name, dataset=dataset),
                _("Its columns are {names}.", names=", ".join(present.values())),
                did_you_mean(name, present.values()),
            )
