"""The science: one module a page of the book."""
