//! Device memory for tests: one range of addresses, handed out from its start.

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use super::super::{Access, DeviceMemory, MemoryFault, Module, System, Window};

/// Where the arena's device addresses start: nothing like its host addresses.
const BASE: u64 = 0x7000_0000_0000;

/// A value of plain bytes.
pub(super) trait Plain: Copy {
    const BYTES: usize;
    fn to_bytes(self) -> Vec<u8>;
    fn of(bytes: &[u8]) -> Self;
}

macro_rules! plain {
    ($($type:ty),*) => {$(
        impl Plain for $type {
            const BYTES: usize = size_of::<$type>();
            fn to_bytes(self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
            fn of(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().expect("whole values"))
            }
        }
    )*};
}

plain!(u8, u16, u32, i32, f32, u64, i64, f64);

pub(super) struct Arena {
    words: Vec<AtomicU64>,
    used: usize,
    symbols: HashMap<String, u64>,
    /// Whether `window` answers.
    pub(super) windows: bool,
    /// What kernels printed.
    pub(super) printed: Mutex<Vec<u8>>,
}

impl Arena {
    pub(super) fn new(bytes: usize) -> Self {
        let words = (0..bytes.div_ceil(8)).map(|_| AtomicU64::new(0)).collect();
        Self { words, used: 0, symbols: HashMap::new(), windows: true, printed: Mutex::default() }
    }

    fn host(&self) -> *mut u8 {
        // All words are atomics: writing through a shared reference is what they are for.
        self.words.as_ptr().cast::<u8>().cast_mut()
    }

    pub(super) fn put<T: Plain>(&mut self, values: &[T]) -> u64 {
        let at = self.used.next_multiple_of(256);
        self.used = at + values.len() * T::BYTES;
        assert!(self.used <= self.words.len() * 8, "the arena is too small");
        let address = BASE + at as u64;
        self.set(address, values);
        address
    }

    pub(super) fn set<T: Plain>(&self, address: u64, values: &[T]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_bytes()).collect();
        let at = (address - BASE) as usize;
        assert!(at + bytes.len() <= self.used, "outside the arena");
        // SAFETY: the range is inside the words, and no kernel runs while a test writes.
        unsafe { self.host().add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    pub(super) fn get<T: Plain>(&self, address: u64, count: usize) -> Vec<T> {
        let at = (address - BASE) as usize;
        assert!(at + count * T::BYTES <= self.used, "outside the arena");
        // SAFETY: the range is inside the words, and no kernel runs while a test reads.
        let bytes = unsafe { std::slice::from_raw_parts(self.host().add(at), count * T::BYTES) };
        bytes.chunks(T::BYTES).map(T::of).collect()
    }

    /// Allocates and initialises a module's globals, as a driver does.
    pub(super) fn load_globals(&mut self, module: &Module) {
        for global in module.globals() {
            assert_eq!(global.init.len(), global.bytes);
            let address = self.put(&global.init);
            self.symbols.insert(global.name.clone(), address);
        }
        for global in module.globals() {
            for (offset, symbol, addend) in &global.relocations {
                let value = self.symbols[symbol].wrapping_add_signed(*addend);
                self.set(self.symbols[&global.name] + *offset as u64, &[value]);
            }
        }
    }

    pub(super) fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols.get(name).copied()
    }
}

impl DeviceMemory for Arena {
    fn resolve(&self, address: u64, bytes: usize, access: Access) -> Result<NonNull<u8>, MemoryFault> {
        let fault = MemoryFault { address, bytes, access, reason: "outside the arena" };
        let at = usize::try_from(address.wrapping_sub(BASE)).map_err(|_| fault.clone())?;
        if at > self.used || bytes > self.used - at {
            return Err(fault);
        }
        // SAFETY: `at` is inside the words.
        NonNull::new(unsafe { self.host().add(at) }).ok_or(fault)
    }

    fn window(&self, address: u64, _access: Access) -> Option<Window> {
        let inside = self.windows && address.checked_sub(BASE).is_some_and(|at| at < self.used as u64);
        let host = NonNull::new(self.host())?;
        inside.then_some(Window { address: BASE, bytes: self.used as u64, host })
    }
}

impl System for Arena {
    fn print(&self, text: &[u8]) {
        self.printed.lock().expect("no test panics in here").extend_from_slice(text);
    }

    fn set_condition(&self, condition: u64, value: u32) {
        self.print(format!("{condition} is {value}\n").as_bytes());
    }
}
