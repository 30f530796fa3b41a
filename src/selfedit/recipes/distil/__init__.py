"""Self-distillation: the model with a passage in view teaches the same model without it."""
