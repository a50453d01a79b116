"""An independent reader of tickets, written from docs/ticket-format.md with NumPy and the standard library alone."""
