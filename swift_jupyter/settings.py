"""What the user prefers, and where each preference came from.

A value is looked up in this order: given in the notebook (``%config``), the
environment (``SWIFT_JUPYTER_<NAME>``), the user's file, the default.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from swift_jupyter.errors import UserError, did_you_mean
from swift_jupyter.files import write_json_atomically
from swift_jupyter.i18n import translate as _

APPLICATION = "swift_jupyter"
ENVIRONMENT_PREFIX = "SWIFT_JUPYTER_"


def _setting(default: Any, help: str, choices: tuple[str, ...] = ()) -> Any:
    metadata = {"help": help, "choices": choices}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def _path(kind: str) -> str:
    return str(getattr(platformdirs, f"user_{kind}_dir")(APPLICATION, appauthor=False))


@dataclass(frozen=True)
class Settings:
    """The preferences in force."""

    default_model: str = _setting("", "The model a command uses when none is given.")
    hub: str = _setting(
        "modelscope",
        "The hub that is asked first; the other one is the fall-back.",
        ("modelscope", "huggingface"),
    )
    cache_dir: str = _setting(lambda: _path("cache"), "The folder for converted local packages.")
    state_dir: str = _setting(lambda: _path("state"), "The folder that lists the runs.")
    output_root: str = _setting("output", "The folder in which runs are created.")
    display: str = _setting(
        "auto", "How results are shown: auto, html or text.", ("auto", "html", "text")
    )
    short_errors: bool = _setting(
        True, "Show errors that a person can mend without their traceback."
    )

    @property
    def cache_path(self) -> Path:
        """The folder for converted local packages."""
        return Path(self.cache_dir).expanduser()

    @property
    def output_path(self) -> Path:
        """The folder in which runs are created."""
        return Path(self.output_root).expanduser()

    @property
    def state_path(self) -> Path:
        """The folder that lists the runs."""
        return Path(self.state_dir).expanduser()


FIELDS: dict[str, dataclasses.Field[Any]] = {f.name: f for f in dataclasses.fields(Settings)}


@dataclass(frozen=True)
class SettingValue:
    """One setting with its effective value and its origin."""

    name: str
    value: Any
    origin: str
    help: str


def user_file() -> Path:
    """Return the path of the user's settings file, which may not exist."""
    return Path(_path("config")) / "config.json"


def parse_setting(name: str, value: Any) -> Any:
    """Check `value` for the setting `name` and return it in the setting's type.

    Raises
    ------
    UserError
        For an unknown name or a value that does not fit.
    """
    spec = _field(name)
    if spec.type == "bool":
        text = str(value).strip().lower()
        if text not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
            raise UserError(_("{name} is true or false, not '{value}'.", name=name, value=value))
        return text in ("true", "1", "yes", "on")
    text = str(value)
    choices = spec.metadata["choices"]
    if choices and text not in choices:
        raise UserError(
            _("{name} cannot be '{value}'.", name=name, value=value),
            _("It is one of {choices}.", choices=", ".join(choices)),
        )
    return text


def _field(name: str) -> dataclasses.Field[Any]:
    if name not in FIELDS:
        raise UserError(
            _("There is no setting '{name}'.", name=name),
            did_you_mean(name, FIELDS),
            _("Type %swift config to see all settings."),
        )
    return FIELDS[name]


def read_user_file(path: Path | None = None) -> dict[str, Any]:
    """Return the settings in the user's file; an absent file is empty.

    Raises
    ------
    UserError
        When the file is not JSON, with its path.
    """
    path = path or user_file()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            _("The settings file {path} cannot be read.", path=path),
            str(error),
            _("Mend or delete it."),
        ) from None
    return content if isinstance(content, dict) else {}


def write_user_setting(name: str, value: Any, path: Path | None = None) -> None:
    """Store one setting in the user's file; None removes it.

    Raises
    ------
    UserError
        For an unknown name, a value that does not fit, or a file that cannot be written.
    """
    path = path or user_file()
    _field(name)
    content = read_user_file(path)
    if value is None:
        content.pop(name, None)
    else:
        content[name] = parse_setting(name, value)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomically(path, content)
    except OSError as error:
        raise UserError(
            _("The settings file {path} cannot be written.", path=path),
            error.strerror or str(error),
            _("Set it for this session instead: %config SwiftMagics.{name} = …", name=name),
        ) from None


def effective_settings(
    overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> list[SettingValue]:
    """Return every setting with its value and where it comes from.

    Raises
    ------
    UserError
        When a value does not fit; it says where the value stands.
    """
    environ = os.environ if environ is None else environ
    overrides = overrides or {}
    stored = read_user_file()
    defaults = Settings()
    values = []
    for name, spec in FIELDS.items():
        variable = ENVIRONMENT_PREFIX + name.upper()
        if name in overrides:
            value, origin = overrides[name], "%config"
        elif environ.get(variable):
            value, origin = environ[variable], variable
        elif stored.get(name) is not None:
            value, origin = stored[name], str(user_file())
        else:
            value, origin = getattr(defaults, name), _("default")
        checked = _parse_from(origin, name, value)
        values.append(SettingValue(name, checked, origin, spec.metadata["help"]))
    return values


def _parse_from(origin: str, name: str, value: Any) -> Any:
    try:
        return parse_setting(name, value)
    except UserError as error:
        raise UserError(
            error.what, error.why, _("It comes from {origin}; mend it there.", origin=origin)
        ) from None


def load_settings(
    overrides: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Return the preferences in force.

    Parameters
    ----------
    overrides : mapping, optional
        Values that win over everything else, such as those of ``%config``.
    environ : mapping, optional
        The environment; the process's own when left out.
    """
    values = effective_settings(overrides, environ)
    return Settings(**{value.name: value.value for value in values})
