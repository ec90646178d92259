//! Tests of reading and writing whole packages, made in memory by [`builder`].

mod builder;
mod containers;
mod deltas;
mod describe;
mod docker;
mod hostile;
mod images;
mod nested;
mod referrers;
mod writing;
