"""Tables that the runtime owns: API keys (in the key database), operations (in each service's own)."""
