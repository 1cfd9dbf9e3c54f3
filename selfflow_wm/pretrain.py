"""Entry point: `python -m selfflow_wm.pretrain --help`."""

from __future__ import annotations

from selfflow_wm.pretraining.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
