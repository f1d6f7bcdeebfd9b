"""The one door through which every text that a person reads passes."""

from __future__ import annotations

import functools
import gettext
import locale
import os
from pathlib import Path

DOMAIN = "swift_jupyter"
LOCALE_DIR = Path(__file__).parent / "locale"


def preferred_language() -> str:
    """Return the language of the environment, such as ``zh_CN``, or ``en``."""
    for variable in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(variable, "").split(":")[0].split(".")[0]
        if value and value not in ("C", "POSIX"):
            return value
    return locale.getlocale()[0] or "en"


@functools.lru_cache(maxsize=8)
def _catalogue(language: str) -> gettext.NullTranslations:
    return gettext.translation(DOMAIN, LOCALE_DIR, languages=[language], fallback=True)


def translate(text: str, /, **values: object) -> str:
    """Translate `text` into the environment's language, then fill its ``{name}`` fields.

    Parameters
    ----------
    text : str
        The English text, a literal so that catalogues can be extracted.
    **values
        What the fields stand for. Values are inserted as they are and never
        treated as a format themselves.
    """
    message = _catalogue(preferred_language()).gettext(text)
    return message.format(**values) if values else message
