"""Whether a writer learns to choose the settings of its own update: the program behind the recipe world-settings."""
