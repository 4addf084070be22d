"""How familiar a prompt is to a trained orchestrator, and texts that should not be."""
