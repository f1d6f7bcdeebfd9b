"""Calls of tools in the form of Hermes and Qwen: JSON between tags in the answer's text."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

OPENING = "<tool_call>"
_CALL = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|$)", re.DOTALL)


def template_calls_tools(template: object) -> bool:
    """Tell whether a chat template takes tools and teaches the form that is read here."""
    return "tools" in str(template) and OPENING in str(template)


def parse_calls(text: str) -> tuple[str, list[dict[str, Any]]]:
    """Split an answer into its text and its calls of tools.

    Parameters
    ----------
    text : str
        The whole answer.

    Returns
    -------
    content : str
        What is not a call; calls that are no JSON stay in it, so that nothing is lost.
    calls : list of dict
        In OpenAI's form.
    """
    calls: list[dict[str, Any]] = []

    def take(match: re.Match[str]) -> str:
        call = _read(match.group(1))
        if call is None:
            return match.group(0)
        calls.append(call)
        return ""

    content = _CALL.sub(take, text)
    return (content.strip() if calls else content), calls


def _read(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {
        "id": f"call_{uuid.uuid4().hex[:24]}",
        "type": "function",
        "function": {"name": value["name"], "arguments": arguments},
    }
