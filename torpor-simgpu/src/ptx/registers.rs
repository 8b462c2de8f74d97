//! The registers of a warp: each register holds its 32 lanes side by side, so that one instruction is one short loop
//! that the compiler turns into vector code.

/// Threads in a warp.
pub(super) const LANES: usize = 32;

/// The file that a register belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    Predicate,
    B16,
    B32,
    B64,
}

impl Class {
    /// The class of registers for values of so many bits; 8-bit values live in 16-bit registers.
    pub(super) fn for_bits(bits: u32) -> Option<Self> {
        Some(match bits {
            1 => Self::Predicate,
            8 | 16 => Self::B16,
            32 => Self::B32,
            64 => Self::B64,
            _ => return None,
        })
    }

    /// Bits of a register; 1 for a predicate.
    pub(super) fn bits(self) -> u32 {
        match self {
            Self::Predicate => 1,
            Self::B16 => 16,
            Self::B32 => 32,
            Self::B64 => 64,
        }
    }
}

/// A register: its file and its index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Register {
    pub(super) class: Class,
    pub(super) index: u32,
}

/// How many registers of each class a kernel has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) predicates: u32,
    pub(super) b16: u32,
    pub(super) b32: u32,
    pub(super) b64: u32,
}

impl Counts {
    /// Takes `count` new registers of a class and returns the index of the first.
    pub(super) fn take(&mut self, class: Class, count: u32) -> u32 {
        let counter = match class {
            Class::Predicate => &mut self.predicates,
            Class::B16 => &mut self.b16,
            Class::B32 => &mut self.b32,
            Class::B64 => &mut self.b64,
        };
        let first = *counter;
        *counter = counter.saturating_add(count);
        first
    }
}

/// The register files of one warp.
#[derive(Debug)]
pub(super) struct Registers {
    /// One bit per lane.
    pub(super) predicates: Vec<u32>,
    pub(super) b16: Vec<[u16; LANES]>,
    pub(super) b32: Vec<[u32; LANES]>,
    pub(super) b64: Vec<[u64; LANES]>,
}

impl Registers {
    pub(super) fn new(counts: Counts) -> Self {
        Self {
            predicates: vec![0; counts.predicates as usize],
            b16: vec![[0; LANES]; counts.b16 as usize],
            b32: vec![[0; LANES]; counts.b32 as usize],
            b64: vec![[0; LANES]; counts.b64 as usize],
        }
    }

    /// Sets one lane of a register to the low bits of a value.
    pub(super) fn set_lane(&mut self, register: Register, lane: usize, value: u64) {
        let index = register.index as usize;
        match register.class {
            Class::Predicate => {
                let bit = 1 << lane;
                self.predicates[index] =
                    if value & 1 != 0 { self.predicates[index] | bit } else { self.predicates[index] & !bit };
            }
            Class::B16 => self.b16[index][lane] = value as u16,
            Class::B32 => self.b32[index][lane] = value as u32,
            Class::B64 => self.b64[index][lane] = value,
        }
    }

    /// Writes a predicate in the lanes of `mask`.
    #[inline(always)]
    pub(super) fn set_predicate(&mut self, index: u32, mask: u32, value: u32) {
        let slot = &mut self.predicates[index as usize];
        *slot = (*slot & !mask) | (value & mask);
    }
}

/// A type of value that registers hold.
pub(super) trait Lane: Copy + Default {
    /// All lanes of a register.
    fn read(registers: &Registers, index: u32) -> [Self; LANES];
    /// Writes the lanes of `mask`.
    fn write(registers: &mut Registers, index: u32, mask: u32, values: &[Self; LANES]);
}

macro_rules! lane {
    ($type:ty, $file:ident, $from:expr, $to:expr) => {
        impl Lane for $type {
            #[inline(always)]
            fn read(registers: &Registers, index: u32) -> [Self; LANES] {
                registers.$file[index as usize].map($from)
            }

            #[inline(always)]
            fn write(registers: &mut Registers, index: u32, mask: u32, values: &[Self; LANES]) {
                let slot = &mut registers.$file[index as usize];
                if mask == u32::MAX {
                    *slot = values.map($to);
                } else {
                    for lane in 0..LANES {
                        if mask & (1 << lane) != 0 {
                            slot[lane] = $to(values[lane]);
                        }
                    }
                }
            }
        }
    };
}

lane!(u16, b16, |bits| bits, |value: u16| value);
lane!(i16, b16, |bits: u16| bits.cast_signed(), |value: i16| value.cast_unsigned());
lane!(u32, b32, |bits| bits, |value: u32| value);
lane!(i32, b32, |bits: u32| bits.cast_signed(), |value: i32| value.cast_unsigned());
lane!(f32, b32, f32::from_bits, |value: f32| value.to_bits());
lane!(u64, b64, |bits| bits, |value: u64| value);
lane!(i64, b64, |bits: u64| bits.cast_signed(), |value: i64| value.cast_unsigned());
lane!(f64, b64, f64::from_bits, |value: f64| value.to_bits());
