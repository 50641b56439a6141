"""How much longer than on an idle machine a test may wait: a deadline only ends what hangs.

``VECTL_TEST_PATIENCE`` is the factor; the emulated hosts of ``tests/vm`` need a large one.
"""

from __future__ import annotations

import os

PATIENCE = float(os.environ.get("VECTL_TEST_PATIENCE", "1"))
