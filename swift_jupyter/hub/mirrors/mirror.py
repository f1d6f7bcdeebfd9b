"""One entry of a mirror list."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from swift_jupyter.hub.endpoints import clean_endpoint
from swift_jupyter.hub.listing import Hub

Role = Literal["hub", "mirror", "node"]
NamedBy = Literal["built in", "yours", "setting", "environment"]
HUBS: tuple[Hub, ...] = ("modelscope", "huggingface")
ROLES: tuple[Role, ...] = ("hub", "mirror", "node")


@dataclass(frozen=True)
class Mirror:
    """An address that gives what a hub gives.

    Parameters
    ----------
    name : str
        Its name for people and commands, unique in any case of letters.
    url : str
        The address, without a trailing slash.
    hubs : tuple of {"modelscope", "huggingface"}
        The protocols it speaks.
    role : {"hub", "mirror", "node"}
        The hub itself, somebody's copy, or a mirror node of our own.
    region : str
        Where it is near, such as ``cn``.
    token_env : str
        The environment variable with its token. Without it, an entry that is not
        built in is never shown a token.
    homepage, report_url, note : str
        For people: what it is, and where to say that it is broken.
    origin : {"built in", "yours", "setting", "environment"}
        Who named it.
    """

    name: str
    url: str
    hubs: tuple[Hub, ...]
    role: Role = "mirror"
    region: str = ""
    token_env: str = ""
    homepage: str = ""
    report_url: str = ""
    note: str = ""
    origin: NamedBy = "yours"

    @property
    def is_official(self) -> bool:
        """Whether it belongs to the hub itself, so that the hub's token may go there."""
        return self.role == "hub" and self.origin == "built in"

    def to_json(self) -> dict[str, Any]:
        """Return the entry as it stands in a list; what is not said is left out."""
        values = dataclasses.asdict(self)
        values["hubs"] = list(self.hubs)
        del values["origin"]
        return {key: value for key, value in values.items() if value}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], origin: NamedBy) -> Mirror:
        """Build an entry of a list that was checked.

        Raises
        ------
        KeyError, TypeError, ValueError
            When it is no entry after all.
        """
        known = {f.name for f in dataclasses.fields(cls)} - {"origin", "hubs", "url"}
        url = clean_endpoint(str(value["url"]))
        hubs = tuple(hub for hub in HUBS if hub in value["hubs"])
        if url is None or not hubs:
            raise ValueError(value)
        texts = {key: str(item) for key, item in value.items() if key in known}
        role = texts.pop("role", "mirror")
        if role not in ROLES:
            raise ValueError(role)
        return cls(url=url, hubs=hubs, role=role, origin=origin, **texts)
