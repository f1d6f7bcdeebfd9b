"""The notebook's door: ``%swift`` and ``%%swift``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load(shell: InteractiveShell) -> None:
    """Register the magics and completion, and mention runs that are at work."""
    from swift_jupyter.magics.greeting import mention_runs
    from swift_jupyter.magics.swift import SwiftMagics

    if any(isinstance(known, SwiftMagics) for known in shell.configurables):
        return
    magics = SwiftMagics(shell)
    shell.register_magics(magics)
    shell.configurables.append(magics)
    magics.connect()
    mention_runs(magics.settings())


def unload(shell: InteractiveShell) -> None:
    """Take the magics and completion away again."""
    from swift_jupyter.magics.swift import SwiftMagics

    for magics in [known for known in shell.configurables if isinstance(known, SwiftMagics)]:
        shell.configurables.remove(magics)
        magics.disconnect()
        for kind in ("line", "cell"):
            shell.magics_manager.magics[kind].pop("swift", None)
