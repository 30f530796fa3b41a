"""A writer that is rewarded for pretraining text: the program behind the recipe world-pretrain."""
