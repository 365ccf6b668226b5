"""Labels of coordinates: vectors, equalities and grids."""
