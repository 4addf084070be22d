"""Stage `bundle`: the orchestrator as the service loads it."""
