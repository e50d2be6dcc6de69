//! What fuzz targets reach of this crate beside its users.

use std::io;

/// What arrives at the plugin's and at the runtime's connection of a trunk whose bytes come in pieces of `size`, and whether
/// the trunk was sound.
pub fn apart(bytes: &[u8], size: usize) -> ([Vec<u8>; 2], io::Result<()>) {
    crate::mux::apart_all(bytes.chunks(size.max(1)))
}
