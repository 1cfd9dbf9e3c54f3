"""`python -m selfflow_wm.data.toy`: the older name of `python -m selfflow_wm.evaluate toy`."""

from selfflow_wm.cli import run_evaluate

if __name__ == "__main__":
    run_evaluate("toy")
