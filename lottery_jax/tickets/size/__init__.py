"""Masks and redraws as an entropy coder writes them: bit-equal when they are read, and what they really cost."""
