"""`python -m selfflow_wm COMMAND ...`: all commands by name; without one, their list."""

from selfflow_wm.commands import run

if __name__ == "__main__":
    run()
