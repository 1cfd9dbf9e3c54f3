"""`python -m selfflow_wm.metrics.train_recogniser`: the older name of
`python -m selfflow_wm.evaluate recogniser`."""

from selfflow_wm.cli import run_evaluate

if __name__ == "__main__":
    run_evaluate("recogniser")
