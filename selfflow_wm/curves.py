"""`python -m selfflow_wm.curves`: the older name of `python -m selfflow_wm.evaluate curves`."""

from selfflow_wm.commands.curves import main

if __name__ == "__main__":
    raise SystemExit(main())
