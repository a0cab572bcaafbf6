//! Results kept in memory and Redis behind one handle, and encoded objects on disk.
