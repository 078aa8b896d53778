"""Benchmarks of spikebench itself. Unlike the tasks, they may import ``methods``: they measure it."""
