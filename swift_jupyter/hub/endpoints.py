"""Where the hubs are and where they keep their files, as the environment says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit


@dataclass(frozen=True)
class HubEnvironment:
    """Addresses, caches and tokens of both hubs.

    Parameters
    ----------
    modelscope_endpoint, huggingface_endpoint : str or None
        The address; None leaves the choice to the hub's own client.
    modelscope_cache : Path
        Root of ModelScope's cache.
    huggingface_cache : Path
        The folder that holds Hugging Face's ``models--…`` folders.
    modelscope_token, huggingface_token : str or None
        Credentials from the environment; never shown.
    """

    modelscope_endpoint: str | None
    huggingface_endpoint: str | None
    modelscope_cache: Path
    huggingface_cache: Path
    modelscope_token: str | None = field(default=None, repr=False)
    huggingface_token: str | None = field(default=None, repr=False)

    def redact(self, text: str) -> str:
        """Return `text` without any token and without passwords of addresses."""
        secrets = [self.modelscope_token, self.huggingface_token]
        for address in (self.modelscope_endpoint, self.huggingface_endpoint):
            secrets.append(urlsplit(address).password if address else None)
        for secret in secrets:
            if secret:
                text = text.replace(secret, "***")
        return text


def read_environment(environ: Mapping[str, str] | None = None) -> HubEnvironment:
    """Read the variables that both hubs' users know.

    Parameters
    ----------
    environ : mapping, optional
        The environment; the process's own when left out.

    Notes
    -----
    ``MODELSCOPE_ENDPOINT`` wins over ``MODELSCOPE_DOMAIN`` and may carry the
    suffix ``/api/v1``, which ModelScope's client would append once more.
    ``MS_CACHE_HOME`` stands for ``MODELSCOPE_CACHE`` where that is unset.
    """
    environ = os.environ if environ is None else environ

    def value(*names: str) -> str | None:
        return next((text for name in names if (text := environ.get(name, "").strip())), None)

    home = Path(environ.get("HOME") or Path.home())
    user_cache = _path(value("XDG_CACHE_HOME"), home) or home / ".cache"
    hf_home = _path(value("HF_HOME"), home) or user_cache / "huggingface"
    return HubEnvironment(
        modelscope_endpoint=clean_endpoint(value("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN")),
        huggingface_endpoint=clean_endpoint(value("HF_ENDPOINT")),
        modelscope_cache=_path(value("MODELSCOPE_CACHE", "MS_CACHE_HOME"), home)
        or home / ".cache" / "modelscope",
        huggingface_cache=_path(value("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"), home)
        or hf_home / "hub",
        modelscope_token=value("MODELSCOPE_API_TOKEN"),
        huggingface_token=value("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    )


def clean_endpoint(text: str | None) -> str | None:
    """Return an address with its scheme, without a trailing slash and without ``/api/v1``."""
    if not text or not text.strip("/ "):
        return None
    text = text.strip()
    if "://" not in text:
        text = f"https://{text}"
    parts = urlsplit(text)
    path = parts.path.rstrip("/")
    while path.endswith("/api/v1"):
        path = path.removesuffix("/api/v1").rstrip("/")
    return urlunsplit((parts.scheme.lower(), parts.netloc, path, "", ""))


def _path(text: str | None, home: Path) -> Path | None:
    if text is None:
        return None
    if text == "~" or text.startswith(("~/", "~\\")):
        return home / text[2:]
    return Path(text).absolute()
