"""Entropy coding of masks and redraws, and the description length of a ticket."""
