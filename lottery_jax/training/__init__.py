"""Training: the loop, checkpoints, parallel runs, optimisers and initialisers."""
