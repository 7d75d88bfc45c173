"""The embedded scale: a generated corpus, and tiny models trained on it, that stand in for the hub's."""
