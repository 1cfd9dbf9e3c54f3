"""Entry point: `python -m selfflow_wm.evaluate --help`."""

from __future__ import annotations

from selfflow_wm.evaluation.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
