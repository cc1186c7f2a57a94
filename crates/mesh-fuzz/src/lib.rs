//! Fuzz targets for every parser of peer input.
