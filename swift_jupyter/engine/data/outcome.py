"""What a person is told about the preparation of the data."""

from __future__ import annotations

from dataclasses import dataclass, field

from swift_jupyter.engine.data.encoding import EncodingResult
from swift_jupyter.engine.data.rows import RowProblem
from swift_jupyter.engine.data.screening import NAMED_PROBLEMS, problem_notices
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _


@dataclass
class Account:
    """What reading the data sets found out."""

    read: int = 0
    problems: list[RowProblem] = field(default_factory=list)
    without_question: int = 0
    with_placeholder: int = 0


def nothing_to_train(result: EncodingResult, limit: int | None) -> UserError:
    """Return the error for data of which no row is left, with the nearest remedy."""
    if result.lengths_deleted:
        shortest = min(result.lengths_deleted)
        return UserError(
            _("Every row is longer than max_length, which is {limit} tokens.", limit=limit),
            _("The shortest of them has {shortest} tokens.", shortest=shortest),
            _(
                "Give --max_length {shortest} or more, or --truncation_strategy right.",
                shortest=shortest,
            ),
        )
    if result.unlabelled:
        return UserError(
            _("After truncation to {limit} tokens no row has an answer left.", limit=limit),
            next_step=_("Give a larger --max_length, or --truncation_strategy left."),
        )
    reasons = "; ".join(str(problem) for problem in result.problems[:NAMED_PROBLEMS])
    return UserError(_("No row can be trained on with the chat template of this model."), reasons)


def notices(
    account: Account, result: EncodingResult, limit: int | None, lost_validation: bool
) -> list[str]:
    """Return what a person should know about the rows that were prepared."""
    lines = problem_notices([*account.problems, *result.problems], account.read)
    if account.without_question:
        lines.append(
            _(
                "Rows without a question, whose answer is learnt all the same: {count}.",
                count=account.without_question,
            )
        )
    if account.with_placeholder:
        lines.append(
            _(
                "Rows that keep a {mark} placeholder: {count}. Give both --model_name and "
                "--model_author to fill it.",
                count=account.with_placeholder,
                mark="{{NAME}} / {{AUTHOR}}",
            )
        )
    if result.lengths_deleted:
        lines.append(
            _(
                "Rows longer than {limit} tokens, left out: {count}. The longest has {longest}.",
                count=len(result.lengths_deleted),
                limit=limit,
                longest=max(result.lengths_deleted),
            )
        )
    if result.cut:
        lines.append(_("Rows cut to {limit} tokens: {count}.", count=result.cut, limit=limit))
    if result.unlabelled:
        lines.append(
            _(
                "Rows left out because their answer is not within {limit} tokens: {count}.",
                count=len(result.unlabelled),
                limit=limit,
            )
        )
    if lost_validation:
        lines.append(_("No row is left for validation."))
    return lines
