"""What the user prefers, and where each preference came from.

A value is looked up in this order: given in the notebook (``%config``), the
environment (``SWIFT_JUPYTER_<NAME>``), the user's file, the default.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs

from swift_jupyter.errors import UserError, did_you_mean
from swift_jupyter.files import write_json_atomically
from swift_jupyter.i18n import translate as _

APPLICATION = "swift_jupyter"
ENVIRONMENT_PREFIX = "SWIFT_JUPYTER_"
_PASSWORD = re.compile(r"(//)[^/@,\s]*@")
_MOST_CONNECTIONS = 128


MASK = "***"


class SecretText(str):
    """A text that is used as it is and never shown: its `repr` is a mask."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(MASK if self else "")


class AddressText(str):
    """Addresses that are used as they are; their `repr` masks the logins inside."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(_mask(str(self)))


def _setting(
    default: Any, help: str, choices: tuple[str, ...] = (), *, secret: bool = False
) -> Any:
    metadata = {"help": help, "choices": choices, "secret": secret}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata, repr=not secret)


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
    nodes: str = _setting(
        "", "Addresses of mirror nodes, separated by commas, which are asked before the hubs."
    )
    max_connections: int = _setting(16, "How many connections a download uses at most.")
    modelscope_token: str = _setting(
        "", "The access token for ModelScope; by default that of its own login.", secret=True
    )
    huggingface_token: str = _setting(
        "", "The access token for Hugging Face; by default that of its own login.", secret=True
    )
    node_token: str = _setting(
        "", "The token that the addresses in nodes want to see.", secret=True
    )
    display: str = _setting(
        "auto", "How results are shown: auto, html or text.", ("auto", "html", "text")
    )
    short_errors: bool = _setting(
        True, "Show errors that a person can mend without their traceback."
    )

    def without_secrets(self) -> Settings:
        """Return a copy that may be written into files which others read."""
        blank: dict[str, Any] = dict.fromkeys(SECRETS, "")
        return dataclasses.replace(self, nodes=_without_logins(self.nodes), **blank)

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
SECRETS = tuple(name for name, spec in FIELDS.items() if spec.metadata["secret"])


@dataclass(frozen=True)
class SettingValue:
    """One setting with its effective value and its origin."""

    name: str
    value: Any
    origin: str
    help: str

    @property
    def shown(self) -> Any:
        """The value for people: secrets and passwords inside addresses are masked."""
        if self.name in SECRETS:
            return MASK if self.value else ""
        return _mask(self.value) if self.name == "nodes" else self.value


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
    if spec.type == "int":
        return _parse_count(name, value)
    text = str(value).strip() if name in SECRETS else str(value)
    if name in SECRETS:
        return SecretText(text)
    if name == "nodes":
        _check_nodes(text)
        return AddressText(text)
    choices = spec.metadata["choices"]
    if choices and text not in choices:
        raise UserError(
            _("{name} cannot be '{value}'.", name=name, value=value),
            _("It is one of {choices}.", choices=", ".join(choices)),
        )
    return text


def _parse_count(name: str, value: Any) -> int:
    text = str(value).strip()
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_CONNECTIONS:
        raise UserError(
            _(
                "{name} is a whole number from 1 to {most}, not '{value}'.",
                name=name,
                most=_MOST_CONNECTIONS,
                value=value,
            )
        )
    return int(text)


def split_nodes(text: str) -> tuple[str, ...]:
    """Return the addresses in the setting ``nodes``."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _check_nodes(text: str) -> None:
    for address in split_nodes(text):
        parts = urlsplit(address if "://" in address else f"http://{address}")
        try:
            good = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
        except ValueError:
            good = None
        if not good:
            raise UserError(
                _("'{address}' is not the address of a node.", address=_mask(address)),
                next_step=_("It has the form http://host:port"),
            )


def _without_logins(addresses: str) -> str:
    return _PASSWORD.sub(r"\1", addresses)


def _mask(address: str) -> str:
    return _PASSWORD.sub(rf"\1{MASK}@", address)


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
        write_json_atomically(path, content, private=any(name in content for name in SECRETS))
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


def secret_variables(settings: Settings) -> dict[str, str]:
    """Return the environment variables that hand the secrets on to another process."""
    values = {name: str(getattr(settings, name)) for name in SECRETS}
    if _without_logins(settings.nodes) != settings.nodes:
        values["nodes"] = str(settings.nodes)
    return {ENVIRONMENT_PREFIX + name.upper(): value for name, value in values.items() if value}


def with_secrets(settings: Settings, environ: Mapping[str, str] | None = None) -> Settings:
    """Fill in the secrets of `settings` from the environment and the user's file."""
    found = {value.name: value.value for value in effective_settings(environ=environ)}
    known = {name: found[name] for name in SECRETS if not getattr(settings, name)}
    if _without_logins(found["nodes"]) == settings.nodes:
        known["nodes"] = found["nodes"]
    return dataclasses.replace(settings, **known)


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
