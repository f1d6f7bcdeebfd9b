"""``GET models``: what the caches hold."""

from __future__ import annotations

from typing import Any

import tornado.web
from jupyter_server.auth.decorator import authorized

from swift_jupyter.hub.cache.entries import CachedRepo
from swift_jupyter.hub.cache.scan import scan_cache
from swift_jupyter.hub.endpoints import read_environment
from swift_jupyter.hub.packages import packages_root
from swift_jupyter.i18n import translate as _
from swift_jupyter.server.base import PolledHandler
from swift_jupyter.settings import Settings, load_settings


class ModelsHandler(PolledHandler):
    """The models in the caches of the server's own environment."""

    @tornado.web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer ``{"cache": …, "models": […], "warnings": […]}``."""
        self.answer(await self.off_loop(_list_models))


def _list_models() -> dict[str, Any]:
    settings = load_settings()
    listing = scan_cache(settings)
    return {
        "cache": _cache_folders(settings),
        "models": [_row(entry) for entry in listing.entries if entry.kind == "model"],
        "warnings": list(listing.warnings),
    }


def _row(entry: CachedRepo) -> dict[str, Any]:
    """Return an entry; its hub is a text for people, who see all of them."""
    return {**entry.to_dict(), "hub": ", ".join(entry.hubs)}


def _cache_folders(settings: Settings) -> dict[str, str]:
    environment = read_environment()
    return {
        "ModelScope": str(environment.modelscope_cache),
        "Hugging Face": str(environment.huggingface_cache),
        _("local packages"): str(packages_root(settings)),
    }
