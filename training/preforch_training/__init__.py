"""How the parts are learned: one file per stage (data, reward, scores, orchestrator, policy, bundle, report)."""
