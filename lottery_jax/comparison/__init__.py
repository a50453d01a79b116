"""Where methods meet: one way from task to ticket to record to report, for all of them."""
