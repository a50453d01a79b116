"""`python -m lottery_jax`, the same as `lottery-jax`."""

from lottery_jax.cli import main

if __name__ == "__main__":
    main()
