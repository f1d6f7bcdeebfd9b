"""Which frontend fits a shell and the user's wish."""

from __future__ import annotations

from typing import Any

from swift_jupyter.commands.frontend import Frontend


def frontend_for(shell: Any, display: str) -> Frontend:
    """Return the notebook's frontend in a kernel, else the terminal's.

    Parameters
    ----------
    shell : InteractiveShell
        The running shell.
    display : {"auto", "html", "text"}
        The setting; anything but ``auto`` is taken as it is.
    """
    if display == "html" or (display == "auto" and hasattr(shell, "kernel")):
        from swift_jupyter.display.notebook import NotebookFrontend

        return NotebookFrontend()
    from swift_jupyter.display.terminal import TerminalFrontend

    return TerminalFrontend()
