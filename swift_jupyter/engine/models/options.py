"""Which model, and how it is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from swift_jupyter.options import option


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The options of every command that loads a model."""

    model: str = option(
        "",
        help="A model id of either hub, a short name, or a local folder.",
        completer="model",
        short="m",
    )
    model_revision: str | None = option(None, help="The branch, tag or commit on the hub.")
    torch_dtype: str | None = option(
        None,
        help="The data type of the weights; by default float32 on a CPU (bfloat16 is not "
        "faster there) and bfloat16 or float16 on an accelerator.",
        choices=("float32", "bfloat16", "float16"),
    )
    attn_impl: str | None = option(
        None,
        help="The attention implementation; by default what transformers picks.",
        choices=("sdpa", "eager", "flash_attention_2"),
        choice_aliases={"flash_attn": "flash_attention_2"},
    )
    trust_remote_code: bool = option(
        False,
        help="Run Python code that comes with the model. Off unless you trust its author.",
    )
    use_hf: bool = option(False, help="Ask Hugging Face before ModelScope.")
