//! The devices that a program of a function with several sees. All of them are one GPU to its worker; what differs is which
//! streams wait for which legacy stream, and what a synchronisation waits for.

/// Devices that a function's programs may see.
pub const MOST_DEVICES: u32 = 8;

/// In [`ContextSynchronize`](super::ContextSynchronize): whatever device it is of.
pub const ALL_DEVICES: u32 = u32::MAX;

/// Among the flags of [`StreamCreate`](super::StreamCreate): the stream is its device's legacy stream. That of the first device is
/// there from the beginning, as number 0.
pub const LEGACY_STREAM: u32 = 1 << 31;

impl super::ContextSynchronize {
    /// Waits for all that the client posted before.
    pub const ALL: Self = Self { device: ALL_DEVICES, reserved: 0 };
}
