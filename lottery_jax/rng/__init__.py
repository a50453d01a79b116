"""Random weights from a seed: the generator, the samplers, where each weight lies, entries that the seed fixes."""
