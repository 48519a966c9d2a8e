//! Code that the examples with images from a prompt share.
#![forbid(unsafe_code)]
