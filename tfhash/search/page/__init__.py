"""A page in the browser that shows the nearest images of a photo."""
