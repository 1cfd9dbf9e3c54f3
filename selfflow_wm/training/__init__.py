"""The one Trainer and what it stands on: optimiser, EMA, checkpoints, logs."""
