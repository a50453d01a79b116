"""Random layers: each wraps the layer whose weights it makes from random ones and masks."""
