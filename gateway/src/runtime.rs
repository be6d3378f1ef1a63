//! A configuration compiled for serving: immutable, swapped whole.
