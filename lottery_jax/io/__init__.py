"""Files: whole or not at all, in slices, and sealed against every change."""
