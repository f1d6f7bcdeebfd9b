"""Which tokens of a prompt ReFT changes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swift_jupyter.errors import OptionError
from swift_jupyter.i18n import translate as _

if TYPE_CHECKING:
    from torch import Tensor

_FIRST_LAST = re.compile(r"f(\d+)\+l(\d+)|f(\d+)|l(\d+)")


@dataclass(frozen=True)
class Positions:
    """Which tokens of a prompt are changed.

    Attributes
    ----------
    first, last : int or None
        How many at either end; None for all.
    """

    first: int | None = None
    last: int | None = None

    @classmethod
    def parse(cls, text: str) -> Positions:
        """Read ``all``, ``f7+l7``, ``f3`` or ``l1``.

        Raises
        ------
        OptionError
            For anything else.
        """
        if text == "all":
            return cls()
        match = _FIRST_LAST.fullmatch(text)
        numbers = [int(number) for number in match.groups() if number] if match else []
        if not match or not sum(numbers):
            raise OptionError(
                _("reft_positions cannot be '{value}'.", value=text),
                _("It is all, or the first and last positions of the prompt."),
                _("For example: --reft_positions f7+l7"),
            )
        return cls(int(match[1] or match[3] or 0), int(match[2] or match[4] or 0))

    def mask(self, prompt: Tensor) -> Tensor:
        """Choose among the prompt's tokens.

        Parameters
        ----------
        prompt : Tensor
            (batch, length), true at the tokens of the prompt, wherever padding is.

        Returns
        -------
        Tensor
            (batch, length), true where hidden states are changed.
        """
        if self.first is None or self.last is None:
            return prompt
        rank = prompt.long().cumsum(dim=1)
        size = rank[:, -1:]
        return prompt & ((rank <= self.first) | (rank > size - self.last))
