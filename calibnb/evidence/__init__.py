"""Evidence: intervals, comparisons, verdicts."""
