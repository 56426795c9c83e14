"""Insights: who an INFER query or a rule applies to, kept true as data arrives and as time passes."""
