"""A matrix of methods, code lengths and seeds, each cell one run of tfhash.train."""
