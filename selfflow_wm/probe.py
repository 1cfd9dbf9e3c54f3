"""`python -m selfflow_wm.probe`: the older name of `python -m selfflow_wm.evaluate probe`."""

from selfflow_wm.commands.probe import main

if __name__ == "__main__":
    raise SystemExit(main())
