"""Benchmarks, one module each: what is asked of a model, how its answers are measured, a row a question."""
