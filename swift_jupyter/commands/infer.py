"""``infer``: ask a model."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swift_jupyter.commands.checks import check_positive
from swift_jupyter.commands.context import Context
from swift_jupyter.commands.pulling import pull_with_progress
from swift_jupyter.commands.results import Result
from swift_jupyter.engine.inference.adapters import AdapterReference, common_base, locate_adapter
from swift_jupyter.engine.inference.chat_model import ChatModel
from swift_jupyter.engine.inference.protocol import Answer, GenerationOptions, conversation
from swift_jupyter.engine.models.catalogue import resolve
from swift_jupyter.engine.models.options import ModelOptions
from swift_jupyter.errors import Interrupted, OptionError, UserError
from swift_jupyter.i18n import translate as _
from swift_jupyter.options import option
from swift_jupyter.runs.index import RunIndex


@dataclass(frozen=True, kw_only=True)
class InferOptions(GenerationOptions, ModelOptions):
    """The options of ``infer``."""

    prompt: str = option(
        "", help="The question; in a cell the text below.", positional=True, takes_rest=True
    )
    adapters: list[Any] = option(
        [],
        help="Adapters that answer: a run as $run, its id, a folder, or name=folder. "
        "With several each gives its answer.",
        completer="adapter",
        objects=True,
    )
    system: str = option("", help="The system text.", short="s")
    history: list[Any] = option(
        [],
        help="Earlier messages as $list, or an earlier answer as $answer to go on from it.",
        objects=True,
    )


class InferResult(Result):
    """The answers to one prompt.

    Parameters
    ----------
    answers : mapping of str to Answer
        By the name of the adapter, or of the model.
    """

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = dict(answers)

    @property
    def answer(self) -> Answer:
        """The first answer."""
        return next(iter(self.answers.values()))

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversation with the first answer; see ``--history``."""
        return self.answer.messages

    def __str__(self) -> str:
        return str(self.answer)

    def __repr__(self) -> str:
        text = str(self.answer).replace("\n", " ")
        return f"<answer: {text[:60] + '…' if len(text) > 60 else text}>"

    def to_dict(self) -> dict[str, Any]:
        """Return every answer with its facts."""
        return {"answers": {name: answer.to_dict() for name, answer in self.answers.items()}}

    def text(self) -> str:
        """Return the answers, with their names when there are several."""
        if len(self.answers) == 1:
            return str(self.answer)
        return "\n\n".join(f"[{name}]\n{answer}" for name, answer in self.answers.items())

    def html(self) -> str:
        """Return the answers, escaped."""
        style = "white-space:pre-wrap"
        return "".join(
            (f"<div><strong>{html.escape(name)}</strong></div>" if len(self.answers) > 1 else "")
            + f'<div style="{style}">{html.escape(answer)}</div>'
            for name, answer in self.answers.items()
        )


def run(options: InferOptions, context: Context) -> InferResult:
    """Load what is needed and let every adapter, or the model itself, answer.

    Raises
    ------
    UserError
        When there is no prompt or no model.
    Interrupted
        When the user stopped it; the text so far is in its result.
    """
    _check(options)
    adapters = [locate(value, context) for value in options.adapters]
    answers: dict[str, Answer] = {}
    speakers = _speakers(options, adapters, context)
    for model, name, label in speakers:
        answers[label] = _ask(model, name, options, context, label if len(speakers) > 1 else "")
        if answers[label].finish_reason == "interrupted":
            raise _interrupted(InferResult(answers), answers[label])
    result = InferResult(answers)
    result.shown = True
    return result


def _check(options: InferOptions) -> None:
    if not options.prompt.strip():
        raise UserError(
            _("infer needs a prompt."),
            next_step=_(
                "Type it below %%swift infer, or on the line: %swift infer Name three colours."
            ),
        )
    check_positive(options, "max_new_tokens", "top_p", "top_k", "repetition_penalty")
    if options.temperature is not None and options.temperature < 0:
        raise OptionError(_("temperature must not be negative."))


def locate(value: Any, context: Context) -> AdapterReference:
    """Find an adapter, also by the id of a run.

    Raises
    ------
    UserError
        When neither a folder nor a run fits.
    """
    if isinstance(value, str):
        name, _sign, rest = value.rpartition("=")
        index = RunIndex(context.settings)
        found = [run for run in index.all() if run.id == rest]
        if found:
            value = f"{name or rest}={found[0].path}"
    return locate_adapter(value)


def _speakers(
    options: InferOptions, located: list[AdapterReference], context: Context
) -> list[tuple[ChatModel, str, str]]:
    """Return who answers: a model in memory, the adapter on it, and what the answer is called.

    A training of all weights leaves a model, which answers without a base.
    """
    adapters = [adapter for adapter in located if options.model or adapter.kind != "model"]
    base = _load(options, adapters, context) if adapters or not located else None
    if base is not None and not located:
        return [(base, "", base.name)]
    speakers = []
    for adapter in located:
        if base is not None and adapter in adapters:
            base.add_adapter(adapter)
            speakers.append((base, adapter.name, adapter.name))
        else:
            alone = dataclasses.replace(options, model=str(adapter.path))
            speakers.append((_load(alone, [], context), "", adapter.name))
    return speakers


def _load(options: InferOptions, adapters: list[AdapterReference], context: Context) -> ChatModel:
    name = options.model or (common_base(adapters) if adapters else _default(context))
    settings = context.settings_for(options.use_hf)
    reference = resolve(name, options.model_revision)
    snapshot = pull_with_progress(reference, context.frontend, settings)
    model = context.models.get(snapshot.path, options)
    if model is not None:
        return model
    with context.frontend.progress(name) as view:
        view.update(_("loading into memory"))
        return context.models.load(name, snapshot.path, options)


def _default(context: Context) -> str:
    if context.settings.default_model:
        return context.settings.default_model
    if len(context.models.names) == 1:
        return context.models.names[0]
    raise UserError(
        _("infer needs a model."),
        next_step=_("For example: --model smollm2-demo"),
    )


def _ask(
    model: ChatModel, adapter: str, options: InferOptions, context: Context, title: str
) -> Answer:
    fields = {f.name: getattr(options, f.name) for f in dataclasses.fields(GenerationOptions)}
    messages = conversation(options.prompt, options.system, options.history)
    with context.frontend.text(title) as view:
        answer = model.chat(messages, GenerationOptions(**fields), adapter, view.append)
        view.finish(_describe(answer))
    return answer


def _describe(answer: Answer) -> str:
    endings = {
        "length": _("cut at max_new_tokens"),
        "interrupted": _("interrupted"),
    }
    ending = endings.get(answer.finish_reason, "")
    speed = _(
        "{count} tokens, {speed} tokens/s",
        count=answer.completion_tokens,
        speed=f"{answer.tokens_per_second:.1f}",
    )
    return f"{speed} · {ending}" if ending else speed


def _interrupted(result: InferResult, answer: Answer) -> Interrupted:
    result.shown = True
    return Interrupted(
        _("Interrupted after {count} tokens.", count=answer.completion_tokens),
        _("The text so far is kept."),
        result=result,
    )
