"""Random source weights from a seed: the generator, samplers, tensor layouts, and mask entries that the seed fixes."""
