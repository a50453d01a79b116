"""A kind of layer, a construction and a learner of one's own: each is one small file and one line in a registry."""
