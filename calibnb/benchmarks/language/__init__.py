"""Randomness asked for in ordinary language."""
