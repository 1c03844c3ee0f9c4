"""Which bytes of a file system nobody needs: one module for each, proven by filling them with garbage."""
