"""The INFER language: from text to a checked, typed query."""
