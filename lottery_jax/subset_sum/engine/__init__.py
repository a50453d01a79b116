"""From a batch of problems to integers on a grid, chunk by chunk on the devices, and back to bits."""
