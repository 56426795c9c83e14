"""The incremental engine: what each query says of each customer, kept true as rows come and go and as time passes.

Read it in this order: `rows` (the rows retained), `vectors` (expressions over the rows of many customers at once),
`ranges` (the part of time that a block of a query looks at), `plan` (a checked query as filters, terms, ranges, totals
and a closing program), `cells` (counts and exact sums for each customer), `passes` (rows added to all totals at once),
`programs` (the closing programs and the machine that runs them), `states` (what holds for whom, since when),
`recomputed` (what needs the rows themselves), `engine`.
"""
