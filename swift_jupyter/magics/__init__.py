"""The notebook's door: ``%swift`` and ``%%swift``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swift_jupyter.errors import UserError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load(shell: InteractiveShell) -> None:
    """Register the magics and completion, and mention runs that are at work."""
    from swift_jupyter.magics.greeting import mention_runs
    from swift_jupyter.magics.swift import SwiftMagics

    if any(isinstance(known, SwiftMagics) for known in shell.configurables):
        return
    magics = SwiftMagics(shell)  # Enters itself into the configurables.
    shell.register_magics(magics)
    magics.connect()
    try:
        mention_runs(magics.settings())
    except UserError as error:
        print(error)  # A broken settings file must not take the magic away.


def unload(shell: InteractiveShell) -> None:
    """Take the magics and completion away again."""
    from swift_jupyter.magics.swift import SwiftMagics

    for magics in [known for known in shell.configurables if isinstance(known, SwiftMagics)]:
        shell.configurables.remove(magics)
        magics.disconnect()
        for kind in ("line", "cell"):
            shell.magics_manager.magics[kind].pop("swift", None)
        shell.magics_manager.registry.pop(SwiftMagics.__name__, None)
