"""Models: where weights come from, what lies in a folder, loading, the chat format."""
