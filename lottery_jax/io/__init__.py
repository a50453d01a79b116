"""Files: atomic writes, folder locks, tensors read in slices, and files with a checksum."""
