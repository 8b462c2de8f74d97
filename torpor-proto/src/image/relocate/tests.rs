//! Cubins whose variables are moved.

use super::super::synthetic::{self, CubinSource, KernelSource, VariableSource};
use super::super::{cubin, elf};
use super::*;

const BASE: u64 = 0x1234_5678_9a00;
const BASES: Bases = Bases { device: BASE, managed: 0x4000_0000_2000 };

fn kernel() -> KernelSource {
    let name = "kernel".to_owned();
    KernelSource { name, parameters: vec![(0, 8)], block_bytes: 8, shared_bytes: 0, registers: 8 }
}

fn source(variables: Vec<VariableSource>) -> CubinSource {
    CubinSource { kernels: vec![kernel()], variables, ..CubinSource::default() }
}

fn of(section: &'static str, name: &str, bytes: u64) -> VariableSource {
    VariableSource::of(section, name, bytes, 7)
}

fn read(source: &CubinSource) -> Relocatable {
    Relocatable::read(synthetic::cubin(source)).expect("it can be moved")
}

fn contents_of<'a>(file: &elf::File<'a>, name: &str) -> &'a [u8] {
    let section = file.sections().iter().find(|section| section.name == name).expect(name);
    file.contents(section).expect("sound")
}

#[test]
fn the_block_s_addresses_stand_where_variables_are_referred_to() {
    let mut table = of(".nv.global.init", "table", 24);
    table.addresses = vec![(8, "counter".to_owned(), 4), (16, "coefficients".to_owned(), 0)];
    let mut coefficients = of(".nv.constant3", "coefficients", 16);
    coefficients.addresses = vec![(0, "table".to_owned(), 8)];
    let moved = read(&source(vec![of(".nv.global", "counter", 40), table, coefficients]));
    let variable = |name: &str| moved.variable(name).expect("it is there");
    let address = |name: &str| (BASE + variable(name).offset).to_le_bytes();
    assert_eq!(
        [variable("counter").bytes, variable("table").bytes, variable("coefficients").bytes],
        [40, 24, 16]
    );
    assert!(moved.variable("kernel").is_none());
    let code = moved.code(BASES);
    let file = elf::File::parse(&code).expect("sound");
    assert_eq!(contents_of(&file, ".nv.constant4"), [address("counter"), address("table")].concat());
    let counter_and_4 = (BASE + variable("counter").offset + 4).to_le_bytes();
    let table_and_8 = (BASE + variable("table").offset + 8).to_le_bytes();
    let initial = [[7; 8], counter_and_4, address("coefficients")].concat();
    let constants = [table_and_8, [7; 8]].concat();
    assert_eq!(contents_of(&file, ".nv.constant3"), constants, "kernels read the bank");
    for section in [".rela.nv.constant4", ".rela.nv.global.init", ".rela.nv.constant3"] {
        assert!(contents_of(&file, section).is_empty(), "{section}");
    }
    let expected = [("coefficients", constants), ("table", initial)]
        .map(|(name, bytes)| (BASE + variable(name).offset, bytes));
    assert_eq!(moved.contents(BASES), expected);
    assert_eq!(moved.constants().collect::<Vec<_>>(), [("coefficients", variable("coefficients"))]);
    assert!(moved.obstacle().is_none());
    assert!(moved.bytes() >= variable("counter").offset + 40);
    assert_eq!(cubin::kernels(&code).expect("sound").len(), 1);
}

fn managed(mut variable: VariableSource) -> VariableSource {
    variable.is_managed = true;
    variable
}

#[test]
fn managed_variables_have_a_block_of_their_own_and_are_others_to_the_driver() {
    let mut pointer = managed(of(".nv.global.init", "pointer", 8));
    pointer.addresses = vec![(0, "plain".to_owned(), 0)];
    let mut plain = of(".nv.global.init", "plain", 16);
    plain.addresses = vec![(8, "huge".to_owned(), 12)];
    let huge = managed(of(".nv.global", "huge", 1 << 20));
    let moved = read(&source(vec![plain, pointer, huge, of(".nv.global", "counter", 4)]));
    assert!(moved.obstacle().is_none() && moved.has_state());
    let variable = |name: &str| moved.variable(name).expect("it is there");
    let address = |name: &str| BASES.of(variable(name).is_managed) + variable(name).offset;
    let names = ["plain", "pointer", "huge", "counter"];
    assert_eq!(names.map(|name| variable(name).is_managed), [false, true, true, false]);
    let (begun, end) = (BASES.managed + moved.managed_bytes(), address("huge") + (1 << 20));
    assert!(end <= begun && moved.bytes() < 8192, "each block has what is its own");
    let code = moved.code(BASES);
    let file = elf::File::parse(&code).expect("sound");
    let addresses = names.map(|name| address(name).to_le_bytes()).concat();
    assert_eq!(contents_of(&file, ".nv.constant4"), addresses);
    let plain = [[7; 8], (address("huge") + 12).to_le_bytes()].concat();
    assert_eq!(moved.contents(BASES), [(address("plain"), plain)]);
    let [(begin, bytes)] = &moved.managed_contents(BASES)[..] else { panic!("one section has contents") };
    let pointer = (address("pointer") - begin) as usize;
    assert_eq!(bytes[pointer..], address("plain").to_le_bytes());
    let marked = file.symbols(|_, other| other & OTHER_MANAGED != 0).expect("sound");
    assert!(marked.is_empty(), "{marked:?}");
}

#[test]
fn what_refers_to_a_section_with_managed_variables_as_a_whole_is_left_to_the_driver() {
    let bytes =
        synthetic::cubin(&source(vec![managed(of(".nv.global", "counter", 4)), of(".nv.global", "x", 4)]));
    assert!(Relocatable::read(bytes.clone()).expect("sound").obstacle().is_none());
    // The symbol of the second variable becomes that of its section: without a size.
    let symbol = [8_u64, 4].map(u64::to_le_bytes).concat();
    let at = bytes.windows(16).position(|window| window == symbol).expect("it lies behind the first");
    let mut whole = bytes;
    whole[at + 8..at + 16].fill(0);
    assert!(Relocatable::read(whole).expect("sound").obstacle().is_some());
}

#[test]
fn only_what_kernels_may_write_is_state() {
    let local = |mut variable: VariableSource| {
        variable.is_local = true;
        variable
    };
    let has_state = |variable| read(&source(vec![variable])).has_state();
    for variable in [
        of(".nv.global", "counter", 4),
        local(of(".nv.global", "kernel$scratch", 16)),
        of(".nv.global.init", "weights", 4096),
        managed(of(".nv.global", "tag", 1)),
        local(of(".nv.global.init", "seed", 8)),
    ] {
        assert!(has_state(variable.clone()), "{variable:?}");
    }
    for variable in [
        of(".nv.global", "tag", 1),
        local(of(".nv.global.init", "precalculated", 4096)),
        local(of(".nv.global.init", "$str", 8)),
        local(of(".nv.global.init", "__unnamed_3", 12)),
        of(".nv.constant3", "coefficients", 64),
    ] {
        assert!(!has_state(variable.clone()), "{variable:?}");
    }
    let alone = CubinSource { kernels: Vec::new(), ..source(vec![of(".nv.global.init", "constants", 112)]) };
    let alone = read(&alone);
    assert!(!alone.has_state() && !alone.has_kernels());
    assert_eq!(alone.contents(BASES), [(BASE, vec![7; 112])]);
}

#[test]
fn what_is_not_known_is_left_to_the_driver() {
    // 0x99 is no kind that is known.
    let bytes = synthetic::cubin(&source(vec![of(".nv.global", "counter", 4)]));
    let place = |bytes: &[u8]| bytes.windows(8).position(|word| word == [2, 0, 0, 0, 3, 0, 0, 0]);
    let at = place(&bytes).expect("the entry is there");
    let mut unknown = bytes.clone();
    unknown[at] = 0x99;
    let read = Relocatable::read(unknown).expect("sound");
    let refused = read.obstacle().expect("it is not known");
    assert!(read.has_state());
    assert!(refused.to_string().contains("counter") && refused.to_string().contains("0x99"), "{refused}");
    let mut aligned = of(".nv.global", "wide", 4096);
    aligned.align = 4096;
    let refused =
        Relocatable::read(synthetic::cubin(&source(vec![aligned]))).expect_err("too much alignment");
    assert!(matches!(refused, Immovable::Alignment { bytes: 4096, .. }));
}

/// A table that points to code between a number and a pointer to a variable, and a constant that points to code.
fn pointing_to_code() -> CubinSource {
    let mut table = of(".nv.global.init", "table", 48);
    let targets = [(8, "kernel", 0), (16, "helper", 0), (24, "counter", 4), (40, "helper", 0)];
    table.addresses = targets.map(|(at, name, addend)| (at, name.to_owned(), addend)).to_vec();
    let mut constant = of(".nv.constant3", "constant", 8);
    constant.addresses = vec![(0, "helper".to_owned(), 0)];
    let seed = of(".nv.global.init", "seed", 8);
    let variables = vec![seed, table, of(".nv.global", "counter", 8), constant];
    CubinSource { functions: vec!["helper".to_owned()], ..source(variables) }
}

#[test]
fn pointers_to_code_are_left_to_the_driver_whose_copy_tells_them() {
    let moved = read(&pointing_to_code());
    assert!(moved.obstacle().is_none(), "{:?}", moved.obstacle());
    let variable = |name: &str| moved.variable(name).expect("it is there");
    let pointers = |name: &str, places: &[[u64; 2]]| {
        let places = places.iter().map(|&[start, end]| start..end).collect();
        CodePointers { name: name.to_owned(), variable: variable(name), places }
    };
    let expected = [pointers("constant", &[[0, 8]]), pointers("table", &[[8, 24], [40, 48]])];
    assert_eq!(moved.code_pointers(), expected);
    let code = moved.code(BASES);
    let file = elf::File::parse(&code).expect("sound");
    let entries = |name: &str| {
        let section = file.sections().iter().find(|section| section.name == name).expect(name);
        let entries = file.relocations(section).expect("sound").expect("it has relocations");
        entries.iter().map(|entry| (entry.offset, entry.kind)).collect::<Vec<_>>()
    };
    assert_eq!(entries(".rela.nv.global.init"), [(16, 2), (24, 2), (48, 2)], "the driver's");
    assert_eq!(entries(".rela.nv.constant3"), [(0, 2)]);
    let counter = (BASE + variable("counter").offset + 4).to_le_bytes();
    assert_eq!(contents_of(&file, ".nv.global.init")[32..40], counter, "ours");
    // As generic addresses.
    let mut generic = synthetic::cubin(&pointing_to_code());
    let entry = [48, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
    let at = generic.windows(12).position(|bytes| bytes == entry).expect("the last entry is there");
    generic[at + 8] = 4;
    let generic = Relocatable::read(generic).expect("sound");
    assert!(generic.obstacle().is_none(), "{:?}", generic.obstacle());
    assert_eq!(generic.code_pointers(), expected);
}

#[test]
fn pointers_to_code_that_no_copy_would_tell_are_an_obstacle() {
    let refused = |change: &dyn Fn(&mut VariableSource)| {
        let mut source = pointing_to_code();
        change(&mut source.variables[1]);
        let read = read(&source);
        assert!(read.code_pointers().is_empty());
        read.obstacle().expect("the driver alone could place it").to_string()
    };
    let local = refused(&|table| table.is_local = true);
    assert!(
        local.contains("kernel") && local.contains(".nv.global.init") && local.contains("0x2"),
        "{local}"
    );
    refused(&|table| table.is_managed = true);
    // The last word is not in the variable as a whole.
    refused(&|table| table.addresses[3].0 = 41);
    // One behind the variable.
    refused(&|table| table.addresses[3].0 = 48);
    // Two of one name.
    let mut source = pointing_to_code();
    source.variables[2].name = "table".to_owned();
    assert!(read(&source).obstacle().is_some());
    // A function that is not in the cubin.
    let mut source = pointing_to_code();
    source.calls = vec!["vprintf"];
    source.variables[1].addresses[0].1 = "vprintf".to_owned();
    assert!(read(&source).obstacle().is_some());
}

#[test]
fn damaged_cubins_are_refused_or_read_but_nothing_panics() {
    let mut table = of(".nv.global.init", "table", 24);
    table.addresses = vec![(8, "counter".to_owned(), 4), (16, "kernel".to_owned(), 0)];
    let variables = vec![
        of(".nv.global", "counter", 40),
        table,
        of(".nv.constant3", "c", 8),
        managed(of(".nv.global", "m", 8)),
    ];
    let sound = synthetic::cubin(&source(variables));
    for at in 0..sound.len() {
        for byte in [0, 1, 0x80, 0xff] {
            let mut damaged = sound.clone();
            damaged[at] = byte;
            if let Ok(moved) = Relocatable::read(damaged) {
                for CodePointers { variable, places, .. } in moved.code_pointers() {
                    assert!(places.iter().all(|place| place.end <= variable.bytes));
                    assert!(variable.offset + variable.bytes <= moved.bytes());
                }
                _ = moved.code(BASES);
                _ = moved.contents(BASES);
                _ = moved.managed_contents(BASES);
            }
        }
    }
}
