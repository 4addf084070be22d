"""The `preforch` command: a thin layer over the other packages, imported only when they are needed."""
