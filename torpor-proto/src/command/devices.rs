//! The devices that a program of a function with several sees. All of them are one GPU to its worker; what differs is which
//! streams wait for which legacy stream, and what a synchronisation waits for.

/// Devices that a function's programs may see.
pub const MOST_DEVICES: u32 = 8;

/// Contexts of one device, the primary one included: [`device_of`] says which is which.
pub const MOST_CONTEXTS: u32 = 512;

/// The device of a context. A context's number is that of its device; of a green one that and a multiple of [`MOST_DEVICES`].
#[inline]
#[must_use]
pub const fn device_of(context: u32) -> u32 {
    context % MOST_DEVICES
}

/// Whether a context is a green one.
#[inline]
#[must_use]
pub const fn is_green(context: u32) -> bool {
    context >= MOST_DEVICES
}

/// Whether what a context waits for is of the other one, too: it is the same, or a green one of its device.
#[inline]
#[must_use]
pub const fn includes(context: u32, other: u32) -> bool {
    context == other || (!is_green(context) && device_of(other) == context)
}

/// In [`ContextSynchronize`](super::ContextSynchronize): whatever context it is of.
pub const ALL_DEVICES: u32 = u32::MAX;

/// Among the flags of [`StreamCreate`](super::StreamCreate): the stream is its context's legacy stream. That of the first device is
/// there from the beginning, as number 0.
pub const LEGACY_STREAM: u32 = 1 << 31;

impl super::ContextSynchronize {
    /// Waits for all that the client posted before.
    pub const ALL: Self = Self { context: ALL_DEVICES, reserved: 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_s_context_includes_its_green_ones_and_none_of_another() {
        let green = 3 + 5 * MOST_DEVICES;
        assert_eq!((device_of(green), is_green(green), is_green(7)), (3, true, false));
        assert!(includes(3, green) && includes(green, green) && includes(3, 3));
        assert!(!includes(green, 3) && !includes(2, green) && !includes(2, 3));
        assert!(!includes(green + MOST_DEVICES, green));
    }
}
