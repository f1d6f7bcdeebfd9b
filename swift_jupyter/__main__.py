"""``python -m swift_jupyter`` is the same as ``swift-jupyter``."""

import sys

from swift_jupyter.cli import main

sys.exit(main())
