"""The work of a deploy run: load a model and serve it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from swift_jupyter.engine.inference.server.size import check_memory
from swift_jupyter.errors import UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.settings import Settings


class DeployReporter(Protocol):
    """What the job tells, and learns that it should stop."""

    def phase(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Say what is being done."""

    def notice(self, text: str) -> None:
        """Say something that the user should know later, too."""

    def should_stop(self) -> bool:
        """Tell whether the job should stop."""


def work(
    options: Mapping[str, Any], folder: Path, settings: Settings, reporter: DeployReporter
) -> dict[str, Any]:
    """Serve a model until the run is stopped.

    Parameters
    ----------
    options : mapping
        See `swift_jupyter.commands.deploy`. It holds no key: that is in a file which
        only the user can read.
    folder : Path
        The run's folder.
    settings : Settings
        Not used.
    reporter : DeployReporter
        Is told.

    Raises
    ------
    UserError
        When the port is taken, the key is gone, or the model cannot be loaded.
    """
    from swift_jupyter.engine.inference.adapters import AdapterReference
    from swift_jupyter.engine.inference.batching.limits import Limits
    from swift_jupyter.engine.inference.loaded import load_chat_model
    from swift_jupyter.engine.inference.server.serve import ServerOptions, bind, serve
    from swift_jupyter.engine.models.options import ModelOptions
    from swift_jupyter.hub.node.access import read_token
    from swift_jupyter.hub.node.running import announced

    key = None
    if options["key_file"]:
        key = read_token(Path(options["key_file"]))
        if key is None:
            raise UserError(
                _("The API key of this server is gone."),
                next_step=_("Start it anew: %swift deploy --api_key TEXT"),
            )
    server = ServerOptions(options["name"], options["host"], options["port"], key)
    model_folder = Path(options["folder"])
    model_options = ModelOptions(**options["model_options"])
    # The port first: a model is loaded for nothing when it is taken.
    sockets = bind(server.host, server.port)
    try:
        check_memory(model_folder, model_options.torch_dtype)
        reporter.phase(_("loading {name}", name=options["name"]))
        model = load_chat_model(options["name"], model_folder, model_options)
        for name, path in options["adapters"]:
            model.add_adapter(AdapterReference(name, Path(path)))
        engine = model.engine(Limits(rows=options["max_batch"], waiting=options["max_waiting"]))
        if not engine.batched:
            reporter.notice(
                _("This kind of model cannot be batched here, so answers come one by one.")
            )
    except BaseException:
        for socket in sockets:
            socket.close()
        raise
    with contextlib.ExitStack() as stack:

        def ready(url: str) -> None:
            port = int(sockets[0].getsockname()[1])
            stack.enter_context(announced(folder, port, url=url))
            reporter.phase(_("serving at {address}", address=url))

        result = serve(model, engine, server, sockets, ready, reporter.should_stop)
    return {**result, "stopped": True}
