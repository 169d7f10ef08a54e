"""`python -m service` is the `selftpt` command."""

from __future__ import annotations

from service.cli import main

main()
