"""Unicode: normal forms of strings, the same in training and serving."""
