"""Structured sampling: one number from a named law."""
