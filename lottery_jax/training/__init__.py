"""Training: the request, the loop, groups of runs, checkpoints, optimisers and initialisers."""
