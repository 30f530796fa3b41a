"""Thinking with updates: in the middle of a thought, and from it afterwards. The program behind world-thinking."""
