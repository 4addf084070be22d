"""Stage `policy`: language models that answer under weights, one module per kind (METHOD 5)."""
