"""NoveltyBench: how many different answers a prompt with many right ones gets."""
