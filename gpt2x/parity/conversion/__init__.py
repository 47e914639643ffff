"""Is a file that was written the same model? What readers find in it, compared with what it was written from."""
