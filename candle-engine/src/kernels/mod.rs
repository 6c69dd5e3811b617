//! Plain slices in, plain slices out.
