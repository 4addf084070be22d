"""vLLM behind the gateway: started, watched, asked, its answers relayed."""
