"""A whole ISR site that does not exist: invented families, what each agency holds on them, and agencies
that act on it.
"""
