"""From a user's own network to a target."""
