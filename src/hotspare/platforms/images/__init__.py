"""A folder of disk images that no machine uses, as a host: each image is a machine with one disk."""
