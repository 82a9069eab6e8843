"""Motion of a data set, computed once and stored beside it."""
