"""`preforch card`: policies of models that nobody trained here."""
