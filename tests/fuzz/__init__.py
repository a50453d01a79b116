"""A fuzz of the verifier: mutated and forged tickets with valid digests (python -m tests.fuzz --help)."""
