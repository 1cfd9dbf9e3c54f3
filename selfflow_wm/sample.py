"""Entry point: `python -m selfflow_wm.sample --help`."""

from selfflow_wm.commands.sample import main

if __name__ == "__main__":
    raise SystemExit(main())
