"""Training sets: the features of many keys at many moments, with a goal, computed from the archive.

`spec` says what is wanted; `planning` pins it (versions, position, instant); `partition` computes the rows of some of
the keys, in this process or as a Ray task; `build` puts the parts together and writes the manifest. The same
specification at the same position gives the same bytes.
"""
