//! Tests of reading and writing whole packages, made in memory by [`builder`].

mod builder;
mod hostile;
mod images;
mod writing;
