//! How much the buffers of all connections may take.

/// What connections may take beyond [`BUFFER_BYTES_MIN`] for each of their buffers, all together.
const SPARE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The least that a buffer may hold. Its memory is there only while there is something in it.
pub(crate) const BUFFER_BYTES_MIN: usize = 32 * 1024;

/// What is spare.
#[derive(Debug)]
pub(crate) struct BufferMemory {
    spare_bytes: usize,
}

impl Default for BufferMemory {
    fn default() -> Self {
        Self { spare_bytes: SPARE_BYTES_MAX }
    }
}

impl BufferMemory {
    /// Sets bytes aside, if they are there.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let is_there = bytes <= self.spare_bytes;
        if is_there {
            self.spare_bytes -= bytes;
        }
        is_there
    }

    pub(crate) fn give_back(&mut self, bytes: usize) {
        self.spare_bytes += bytes;
    }
}
