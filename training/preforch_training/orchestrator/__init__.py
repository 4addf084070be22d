"""Stage `orchestrator`: f(x), from targets to a fitted model (METHOD 3 and 4; paper, Eq. 6 to 8)."""
