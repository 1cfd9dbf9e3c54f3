"""Self-Flow world-action models: flow matching with dual timesteps and self-distillation."""
