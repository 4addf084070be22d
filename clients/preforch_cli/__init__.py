"""The `preforch` command: a thin layer over the other packages, each of which it imports only when it is needed."""
