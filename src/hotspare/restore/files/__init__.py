"""What people do with the files inside restore points: list, find, compare and restore them."""
