"""Loss-aware tickets: what one weight misses is made up for by the others of its output (`loss_aware`)."""
