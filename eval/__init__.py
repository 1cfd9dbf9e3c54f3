"""Closed-loop evaluation: tasks, rollouts, metrics, reports and demonstration collection."""
