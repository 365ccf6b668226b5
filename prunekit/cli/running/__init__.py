"""What ``prunekit prune`` and ``prunekit run`` do together: one run from what was asked to its folder, or in small."""
