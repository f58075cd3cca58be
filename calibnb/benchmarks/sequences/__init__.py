"""Many draws in one answer."""
