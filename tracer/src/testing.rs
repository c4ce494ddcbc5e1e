//! What tests, benchmarks and fuzz targets outside this crate use of it. Not an interface for anybody else.
