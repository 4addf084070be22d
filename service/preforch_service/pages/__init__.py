"""What a browser sees: the playground and the documentation of the API."""
