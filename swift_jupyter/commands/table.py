"""The one table of subcommands. Names only: a command's module is imported on use."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from swift_jupyter.errors import OptionError, did_you_mean
from swift_jupyter.i18n import translate as _


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Attributes
    ----------
    name : str
        The word after ``%swift``.
    summary : str
        One sentence for the overview.
    options_name : str
        The dataclass of options in the command's module.
    body : str
        What the body of a ``%%swift`` cell is: ``yaml``, ``prompt`` or nothing.
    prompt_option : str
        The option that takes the prompt.
    examples : tuple of str
        Cells or lines that can be copied.
    """

    name: str
    summary: str
    options_name: str
    examples: tuple[str, ...]
    body: Literal["", "yaml", "prompt"] = ""
    prompt_option: str = "prompt"

    @property
    def function_name(self) -> str:
        """The name as a function of the package, where subpackages have names too."""
        return "manage_runs" if self.name == "runs" else self.name

    @property
    def module_name(self) -> str:
        """The module that declares the options and runs the command."""
        return f"swift_jupyter.commands.{self.name}"

    def load_options(self) -> type:
        """Import the command's module and return its dataclass of options."""
        options: type = getattr(importlib.import_module(self.module_name), self.options_name)
        return options

    def load_function(self) -> Callable[[Any, Any], Any]:
        """Import the command's module and return ``run(options, context)``."""
        function: Callable[[Any, Any], Any] = importlib.import_module(self.module_name).run
        return function


_COMMANDS = (
    Command(
        "download",
        "Bring a model or data set to this machine and say where it is.",
        "DownloadOptions",
        (
            "%swift download smollm2-demo",
            "%swift download Qwen/Qwen2.5-0.5B-Instruct --background",
            "%swift download swift/self-cognition --dataset --source modelscope",
            "%swift download --lock swift-jupyter.lock",
        ),
    ),
    Command(
        "infer",
        "Ask a model, with or without adapters; the answer streams into the cell.",
        "InferOptions",
        ("%%swift infer --model smollm2-demo\nWho are you?", "%swift infer Name three colours."),
        body="prompt",
    ),
    Command(
        "sft",
        "Fine-tune a model on conversations, with a live chart.",
        "SftOptions",
        (
            "%%swift sft --model smollm2-demo --dataset self-cognition#200 --out run\n"
            "lora_rank: 8\nmodel_name: 小燕 Xiaoyan\nmodel_author: 燕子 Swallow",
            "%swift sft --model smollm2-demo --dataset $df --background",
        ),
        body="yaml",
    ),
    Command(
        "show",
        "Show the data as the model sees them: token by token, by role, and what is trained.",
        "ShowOptions",
        (
            "%swift show self-cognition#200 --model smollm2-demo",
            "%swift show $df --model smollm2-demo --random",
        ),
    ),
    Command(
        "merge",
        "Write adapter and base as one standalone model, and measure that they agree.",
        "MergeOptions",
        ("%swift merge $run", "%swift merge output/demo/checkpoint-38 --output_dir my-model"),
        body="yaml",
    ),
    Command(
        "deploy",
        "Serve a model and its adapters to OpenAI's clients, many at once.",
        "DeployOptions",
        (
            "%swift deploy --model smollm2-demo",
            "%swift deploy --adapters $run --port 8002",
            "swift-jupyter deploy --model smollm2-demo --host 0.0.0.0 --api_key SECRET",
        ),
        body="yaml",
    ),
    Command(
        "runs",
        "List runs; attach to, stop, resume or read the log of one.",
        "RunsOptions",
        ("%swift runs", "%swift runs attach sft-1a2b", "%swift runs resume sft-1a2b"),
    ),
    Command(
        "models",
        "Search the known models by name and see which are on this machine.",
        "ModelsOptions",
        ("%swift models qwen2.5", "%swift models --cached"),
    ),
    Command(
        "cache",
        "List what is cached; check, remove, clean up or pin it.",
        "CacheOptions",
        (
            "%swift cache",
            "%swift cache ls Qwen/* --incomplete",
            "%swift cache verify Qwen/Qwen2.5-0.5B-Instruct",
            "%swift cache rm smollm2-demo --yes",
            "%swift cache prune",
        ),
    ),
    Command(
        "mirrors",
        "List the places that copy the hubs; add, remove, measure or report one.",
        "MirrorsOptions",
        (
            "%swift mirrors",
            "%swift mirrors probe",
            "%swift mirrors add lab --url http://lab.example:8000 --role node",
        ),
    ),
    Command(
        "mirror",
        "Run a mirror node that serves both hubs' clients, keep it up to date, and look at it.",
        "MirrorOptions",
        (
            "%swift mirror serve --on_demand",
            "%swift mirror sync Qwen/Qwen2.5-0.5B-Instruct",
            "swift-jupyter mirror serve --host 0.0.0.0 --token SECRET --on_demand",
            "swift-jupyter mirror sync --list models.txt --every 1h",
            "%swift mirror status",
        ),
    ),
    Command(
        "unload",
        "Free the models that inference cells keep in memory.",
        "UnloadOptions",
        ("%swift unload",),
    ),
    Command(
        "config",
        "Show the settings and where each comes from, or store one.",
        "ConfigOptions",
        ("%swift config", "%swift config set hub huggingface"),
    ),
    Command(
        "doctor",
        "Check this machine and say what is missing and how to get it.",
        "DoctorOptions",
        ("%swift doctor",),
    ),
    Command(
        "quickstart",
        "Open the first teaching notebook, or run it headless with --run.",
        "QuickstartOptions",
        ("swift-jupyter quickstart --run",),
    ),
)

COMMANDS: dict[str, Command] = {command.name: command for command in _COMMANDS}


def find_command(name: str) -> Command:
    """Return the subcommand called `name`.

    Raises
    ------
    OptionError
        When there is none, with the nearest names.
    """
    command = COMMANDS.get(name)
    if command is None:
        raise OptionError(
            _("There is no '%swift {name}'.", name=name),
            did_you_mean(name, COMMANDS)
            or _("The commands are {names}.", names=", ".join(COMMANDS)),
            _("Type %swift for an overview."),
        )
    return command
