"""The files inside a volume: one module for each way to read them, behind one contract."""
