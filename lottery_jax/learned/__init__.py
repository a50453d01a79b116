"""Learned masks: scores trained on frozen random weights. One learner per file."""
