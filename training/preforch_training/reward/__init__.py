"""Stage `reward`: one reward model per objective, trained or given (METHOD 1; paper, Eq. 2)."""
