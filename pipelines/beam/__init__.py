"""Apache Beam helpers: options, Arrow blocks as elements, hashing, progress, and output directories."""
