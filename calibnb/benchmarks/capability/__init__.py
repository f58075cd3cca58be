"""Capability: what a model can do besides drawing numbers."""
