//! What the commands show.
