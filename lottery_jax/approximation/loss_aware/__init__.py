"""Loss-aware tickets: the weights of an output compensate for each other's errors (`loss_aware`)."""
