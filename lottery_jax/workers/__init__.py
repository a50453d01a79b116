"""Many processes on one job: who they are, and what is said when one is lost."""
