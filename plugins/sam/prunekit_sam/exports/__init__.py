"""A slimmed SAM for use elsewhere: one file a format."""
