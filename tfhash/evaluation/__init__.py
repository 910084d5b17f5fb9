"""How well codes retrieve: metrics, other projects' conventions, triplet accuracy. NumPy alone."""
