"""REST for the JupyterLab sidebar. It reads folders and never loads a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tornado.web import Application

__all__ = ["setup_handlers"]

NAMESPACE = "swift-jupyter"


def setup_handlers(web_app: Application) -> None:
    """Add the handlers below ``<base_url>/swift-jupyter/`` to a Jupyter server.

    Parameters
    ----------
    web_app : tornado.web.Application
        The server's application.
    """
    from jupyter_server.utils import url_path_join

    from swift_jupyter.server.environment import EnvironmentHandler
    from swift_jupyter.server.models import ModelsHandler
    from swift_jupyter.server.runs import RunsHandler, StopRunHandler

    prefix = url_path_join(web_app.settings["base_url"], NAMESPACE)
    web_app.add_handlers(
        ".*$",
        [
            (url_path_join(prefix, "models"), ModelsHandler),
            (url_path_join(prefix, "runs"), RunsHandler),
            (url_path_join(prefix, "runs", "([^/]+)", "stop"), StopRunHandler),
            (url_path_join(prefix, "env"), EnvironmentHandler),
        ],
    )
