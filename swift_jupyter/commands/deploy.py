"""``deploy``: serve a model to OpenAI's clients."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swift_jupyter.commands.checks import check_positive
from swift_jupyter.commands.context import Context
from swift_jupyter.commands.deploy_run import DeployRun
from swift_jupyter.commands.infer import locate
from swift_jupyter.commands.pulling import pull_with_progress
from swift_jupyter.commands.results import Result
from swift_jupyter.engine.inference.adapters import AdapterReference, common_base
from swift_jupyter.engine.models.catalogue import resolve
from swift_jupyter.engine.models.options import ModelOptions
from swift_jupyter.errors import OptionError, UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option
from swift_jupyter.runs.launch import launch

KEY_VARIABLE = "SWIFT_JUPYTER_API_KEY"


@dataclass(frozen=True, kw_only=True)
class DeployOptions(ModelOptions):
    """The options of ``deploy``."""

    adapters: list[Any] = option(
        [],
        help="Adapters that are served beside the model, each under its own name: a run as "
        "$run, its id, a folder, or name=folder.",
        completer="adapter",
        objects=True,
    )
    served_model_name: str = option(
        "", help="What clients call the model; by default what --model says."
    )
    infer_backend: str = option(
        "auto",
        help="What executes the model; auto takes transformers, the only one so far.",
        choices=("auto", "transformers"),
        choice_aliases={"pt": "transformers"},
    )
    host: str = option(
        "127.0.0.1",
        help="The address to listen on; 0.0.0.0 lets other machines in, which needs --api_key.",
    )
    port: int = option(8001, help="The port; 0 takes a free one.")
    api_key: str = option(
        "",
        help="What clients have to show; better given by the environment variable "
        "SWIFT_JUPYTER_API_KEY, which no list of processes shows.",
    )
    max_batch_size: int = option(32, help="How many answers are computed at the same time.")
    max_waiting: int = option(
        256, help="How many more may wait; to the next one the server answers 429."
    )
    background: bool = option(False, help="In a terminal: return at once, as notebooks do.")


def run(options: DeployOptions, context: Context) -> Result:
    """Start a server as a run, and return when it answers.

    Raises
    ------
    UserError
        When the options do not fit, the port is taken, or the server does not come up.
    Interrupted
        When it was stopped while a terminal watched it.
    """
    from swift_jupyter.engine.inference.server.serve import bind, check_exposure
    from swift_jupyter.engine.inference.server.size import check_memory
    from swift_jupyter.hub.node.access import keep_token
    from swift_jupyter.hub.tokens import clean_token

    check_positive(options, "max_batch_size", "max_waiting")
    if not 0 <= options.port < 65536:
        raise OptionError(_("There is no port {port}.", port=options.port))
    text = options.api_key or os.environ.get(KEY_VARIABLE, "")
    key = clean_token(text)
    if text and key is None:
        raise OptionError(
            _("This API key cannot be used."),
            _("It has to be plain letters, digits and signs."),
        )
    check_exposure(options.host, key)
    # Tried here, so that nothing is downloaded or loaded for a port that is taken.
    for socket in bind(options.host, options.port):
        socket.close()
    name, adapters = _who(options, context)
    reference = resolve(name, options.model_revision)
    snapshot = pull_with_progress(reference, context.frontend, context.settings_for(options.use_hf))
    check_memory(Path(snapshot.path), options.torch_dtype)
    served = options.served_model_name or name
    key_file = ""
    if key is not None:
        path = context.settings.state_path / "deploy" / uuid.uuid4().hex
        keep_token(key, path)
        key_file = str(path)
    values = {
        "name": served,
        "folder": str(Path(snapshot.path).absolute()),
        "model_options": {
            "model": name,
            "torch_dtype": options.torch_dtype,
            "attn_impl": options.attn_impl,
            "trust_remote_code": options.trust_remote_code,
        },
        "adapters": [[adapter.name, str(adapter.path)] for adapter in adapters],
        "host": options.host,
        "port": options.port,
        "key_file": key_file,
        "max_batch": options.max_batch_size,
        "max_waiting": options.max_waiting,
    }
    folder = context.settings.output_path / "deploy"
    result = DeployRun(launch("deploy", values, folder, context.settings, title=served))
    with context.frontend.progress(served) as view:
        result.wait_until_serving(view.update)
    if context.in_terminal and not options.background:
        from swift_jupyter.commands.following import follow

        context.frontend.notice(f"{result.url}\n\n{result.client_snippet()}\n")
        return follow(result.run, context, background=False)
    return result


def _who(options: DeployOptions, context: Context) -> tuple[str, list[AdapterReference]]:
    """Return the model to serve, and the adapters beside it."""
    located = [locate(value, context) for value in options.adapters]
    whole = [adapter for adapter in located if adapter.kind == "model"]
    if whole and (len(located) > 1 or options.model):
        raise UserError(
            _("{name} is a whole model, not an adapter.", name=whole[0].name),
            _("Its own weights were trained, so it needs no base."),
            _("Give it alone: --model {path}", path=whole[0].path),
        )
    if whole:
        return str(whole[0].path), []
    name = options.model or (common_base(located) if located else context.settings.default_model)
    if not name:
        raise UserError(
            _("deploy needs a model."), next_step=_("For example: --model smollm2-demo")
        )
    served = options.served_model_name or name
    names = [served, *(adapter.name for adapter in located)]
    double = next((n for n in names if names.count(n) > 1), None)
    if double is not None:
        raise OptionError(
            _("Two would be called {name}.", name=double),
            next_step=_("Give another name: --adapters NAME=FOLDER"),
        )
    return name, located
