"""Pictures of a run: a page to look around in, a figure to print, in one set of colours."""
