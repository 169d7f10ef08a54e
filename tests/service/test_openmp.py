"""What decides how torch's threads wait must be said before torch is there."""

from __future__ import annotations

import subprocess
import sys


def test_the_command_line_does_not_import_torch_before_it_chose_how_threads_wait() -> None:
    code = "import sys, service.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
