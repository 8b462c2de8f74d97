//! How the GPU's TPCs lie in its GPCs: a private table of the driver's, which cuBLASLt asks too.
//!
//! No header declares it; the meaning was inferred from what an H200's driver (580.159) writes. A driver without the table
//! (the simulated one, or another version) tells nothing, and clients make do with an even spread.

use super::Device;
use super::table::GetExportTable;
use std::ffi::c_void;

/// 1734dc26-800d-4745-8726-c0f1e7dd8bca
const TABLE_ID: [u8; 16] =
    [0x17, 0x34, 0xdc, 0x26, 0x80, 0x0d, 0x47, 0x45, 0x87, 0x26, 0xc0, 0xf1, 0xe7, 0xdd, 0x8b, 0xca];

/// The table's first word: its length, which tells this version of it.
const TABLE_BYTES: usize = 136;

/// `CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT`
const MULTIPROCESSORS: u32 = 16;

/// The words that are used.
#[repr(C)]
struct LayoutTable {
    size_bytes: usize,
    unused_1: [usize; 3],
    allocate: unsafe extern "C" fn(*mut *mut u8, *mut *mut u8) -> i32,
    unused_5: [usize; 8],
    free: unsafe extern "C" fn(*mut u8, *mut u8) -> i32,
}

impl Device {
    /// The GPC of each TPC and its place in it, one byte each, if the driver tells. The context must be current.
    pub(super) fn tpc_layout(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let ask: GetExportTable = self.table().cuGetExportTable?;
        let (mut table, mut multiprocessors) = (std::ptr::null::<c_void>(), 0);
        // SAFETY: writes one pointer; reads 16 bytes. Then writes one integer.
        let (asked, counted) = unsafe {
            let asked = ask(&mut table, &TABLE_ID);
            (asked, (self.table().cuDeviceGetAttribute)(&mut multiprocessors, MULTIPROCESSORS, self.ordinal))
        };
        if asked != 0 || counted != 0 || table.is_null() {
            return None;
        }
        let pairs = usize::try_from(multiprocessors).ok()? / 2;
        // SAFETY: tables begin with their length and never move; one of this length has the words above.
        let table = unsafe {
            if table.cast::<usize>().read() != TABLE_BYTES {
                return None;
            }
            &*table.cast::<LayoutTable>()
        };
        let (mut clusters, mut places) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: writes two pointers to arrays with a byte for each TPC, which are copied and given back.
        unsafe {
            if (table.allocate)(&mut clusters, &mut places) != 0 || clusters.is_null() || places.is_null() {
                return None;
            }
            let copies = (
                std::slice::from_raw_parts(clusters, pairs).to_vec(),
                std::slice::from_raw_parts(places, pairs).to_vec(),
            );
            (table.free)(clusters, places);
            Some(copies)
        }
    }
}
