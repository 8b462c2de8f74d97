//! Single instructions with the results that the PTX manual gives for them.

use super::{evaluate, single};

/// Evaluates an instruction into `%r0`.
fn word(body: &str) -> u32 {
    single(&format!("{body}\nst.global.u32 [%slot], %r0;")) as u32
}

/// Evaluates an instruction into `%rd0`.
fn long(body: &str) -> u64 {
    single(&format!("{body}\nst.global.u64 [%slot], %rd0;"))
}

/// Evaluates an instruction into `%p0`.
fn truth(body: &str) -> bool {
    word(&format!("{body}\nselp.u32 %r0, 1, 0, %p0;")) == 1
}

fn float(value: f32) -> String {
    format!("0f{:08X}", value.to_bits())
}

#[test]
fn integers_at_their_limits() {
    assert_eq!(word("add.sat.s32 %r0, 2147483647, 1;"), i32::MAX as u32);
    assert_eq!(word("sub.sat.s32 %r0, -2147483648, 1;"), i32::MIN as u32);
    assert_eq!(word("div.s32 %r0, -2147483648, -1;"), i32::MIN as u32);
    assert_eq!(word("div.u32 %r0, 5, 0;"), u32::MAX);
    assert_eq!(word("rem.u32 %r0, 5, 0;"), 5);
    assert_eq!(word("abs.s32 %r0, -7;"), 7);
    assert_eq!(word("mul24.lo.u32 %r0, 0x1000003, 5;"), 15);
    assert_eq!(word("mul24.hi.s32 %r0, 0xFFFFFF, 0x10000;"), u32::MAX);
    assert_eq!(word("sad.s32 %r0, -3, 4, 10;"), 17);
    assert_eq!(long("mad.wide.s32 %rd0, -2, 3, 1;"), (-5i64) as u64);
    assert_eq!(long("mul.hi.u64 %rd0, 0x8000000000000000, 6;"), 3);
    assert_eq!(word("dp2a.lo.s32.u32 %r0, 0xFFFF0002, 0x0304, 1;"), 2 * 4 + 1 - 3);
}

#[test]
fn carries_link_words() {
    let sum = "add.cc.u32 %r0, 0xFFFFFFFF, 1; addc.cc.u32 %r0, 0xFFFFFFFF, 0; addc.u32 %r0, 5, 0;";
    assert_eq!(word(sum), 6);
    assert_eq!(word("sub.cc.u32 %r0, 0, 1; subc.u32 %r0, 10, 3;"), 6);
    assert_eq!(word("mad.hi.cc.u32 %r1, 0x80000000, 4, 0xFFFFFFFF; addc.u32 %r0, 0, 0;"), 1);
}

#[test]
fn fields_and_permutations_of_bits() {
    assert_eq!(word("bfe.u32 %r0, 0xABCD1234, 8, 12;"), 0xd12);
    assert_eq!(word("bfe.s32 %r0, 0x00000800, 8, 4;"), 0xffff_fff8);
    assert_eq!(word("bfe.s32 %r0, 0x80000000, 28, 8;"), 0xffff_fff8);
    assert_eq!(word("bfe.s32 %r0, 0x80000000, 40, 8;"), u32::MAX);
    assert_eq!(word("bfe.u32 %r0, 0xFFFFFFFF, 4, 0;"), 0);
    assert_eq!(word("bfi.b32 %r0, 0x5, 0xFFFFFFFF, 4, 8;"), 0xffff_f05f);
    assert_eq!(word("bfi.b32 %r0, 0x5, 0x77, 40, 8;"), 0x77);
    assert_eq!(word("bfind.u32 %r0, 0x00010000;"), 16);
    assert_eq!(word("bfind.s32 %r0, -1;"), u32::MAX);
    assert_eq!(word("bfind.shiftamt.u32 %r0, 0x00010000;"), 15);
    assert_eq!(word("lop3.b32 %r0, 0xF0F0F0F0, 0xCCCCCCCC, 0xAAAAAAAA, 0x80;"), 0x8080_8080);
    assert_eq!(word("lop3.b32 %r0, 0xF0F0F0F0, 0xCCCCCCCC, 0xAAAAAAAA, 0x96;"), 0x9696_9696);
    assert_eq!(word("prmt.b32 %r0, 0x44332211, 0x88776655, 0x7531;"), 0x8866_4422);
    assert_eq!(word("prmt.b32 %r0, 0x00000080, 0, 0x8888;"), u32::MAX);
    assert_eq!(word("prmt.b32.rc16 %r0, 0x44332211, 0, 1;"), 0x4433_4433);
    assert_eq!(word("shf.l.clamp.b32 %r0, 1, 2, 40;"), 1);
    assert_eq!(word("shf.r.wrap.b32 %r0, 1, 2, 33;"), 0);
    assert_eq!(word("shl.b32 %r0, 1, 32;"), 0);
    assert_eq!(word("shr.s32 %r0, -8, 100;"), u32::MAX);
    assert_eq!(word("shr.u32 %r0, -8, 32;"), 0);
    assert_eq!(word("cnot.b32 %r0, 0;"), 1);
    assert_eq!(word("bmsk.clamp.b32 %r0, 4, 8;"), 0xff0);
    assert_eq!(word("szext.wrap.s32 %r0, 0xFF, 8;"), u32::MAX);
    assert_eq!(word("fns.b32 %r0, 0xaaaaaaaa, 3, 2;"), 5);
    assert_eq!(word("fns.b32 %r0, 0xaaaaaaaa, 3, -2;"), 1);
    assert_eq!(long("brev.b64 %rd0, 1;"), 1 << 63);
    assert_eq!(word("popc.b64 %r0, 0xFF00000000000001;"), 9);
    assert_eq!(word("clz.b64 %r0, 1;"), 63);
}

#[test]
fn floats_follow_modes_and_flags() {
    let eval = |instruction: &str| f32::from_bits(word(&format!("{instruction} mov.b32 %r0, %f0;")));
    let (one, tiny) = (float(1.0), float(1e-20));
    assert_eq!(eval(&format!("add.rn.f32 %f0, {one}, {tiny};")), 1.0);
    assert_eq!(eval(&format!("add.rp.f32 %f0, {one}, {tiny};")), 1.0f32.next_up());
    assert_eq!(eval(&format!("sub.rm.f32 %f0, {one}, {tiny};")), 1.0f32.next_down());
    assert_eq!(eval(&format!("fma.rz.f32 %f0, {one}, {one}, {};", float(-1e-20))), 1.0f32.next_down());
    assert!(
        eval(&format!("sub.rm.f32 %f0, {one}, {one};")).to_bits() == 0x8000_0000,
        "exact zero rounds to -0"
    );
    assert_eq!(eval(&format!("div.rz.f32 %f0, {one}, {};", float(3.0))), (1.0f32 / 3.0).next_down());
    assert_eq!(eval(&format!("sqrt.rp.f32 %f0, {};", float(2.0))), 2.0f32.sqrt().next_up());
    assert_eq!(eval(&format!("add.sat.f32 %f0, {one}, {one};")), 1.0);
    assert_eq!(eval("add.sat.f32 %f0, 0f7FC00000, 0f00000000;"), 0.0);
    let half_minimum = float(f32::MIN_POSITIVE / 2.0);
    assert_eq!(eval(&format!("add.f32 %f0, {half_minimum}, {half_minimum};")), f32::MIN_POSITIVE);
    assert_eq!(eval(&format!("add.ftz.f32 %f0, {half_minimum}, {half_minimum};")), 0.0);
    assert_eq!(eval(&format!("mul.ftz.f32 %f0, {}, {};", float(1e-20), float(1e-20))), 0.0);
    assert_eq!(eval("sub.f32 %f0, 0f7F800000, 0f7F800000;").to_bits(), 0x7fff_ffff, "the canonical NaN");
    assert_eq!(eval("min.f32 %f0, 0f7FC00000, 0f40000000;"), 2.0);
    assert!(eval("min.NaN.f32 %f0, 0f7FC00000, 0f40000000;").is_nan());
    assert_eq!(eval("max.f32 %f0, 0f80000000, 0f00000000;").to_bits(), 0);
    assert_eq!(eval("min.f32 %f0, 0f00000000, 0f80000000;").to_bits(), 0x8000_0000);
    assert_eq!(eval(&format!("ex2.approx.f32 %f0, {};", float(10.0))), 1024.0);
    assert_eq!(eval(&format!("lg2.approx.f32 %f0, {};", float(8.0))), 3.0);
    assert_eq!(eval(&format!("rsqrt.approx.f32 %f0, {};", float(0.25))), 2.0);
    assert_eq!(eval(&format!("copysign.f32 %f0, {}, {};", float(-0.0), float(3.0))), -3.0);
}

#[test]
fn double_precision_modes() {
    let eval = |instruction: &str| f64::from_bits(long(&format!("{instruction} mov.b64 %rd0, %fd0;")));
    let literal = |value: f64| format!("0d{:016X}", value.to_bits());
    assert_eq!(eval(&format!("add.rp.f64 %fd0, {}, {};", literal(1.0), literal(1e-40))), 1.0f64.next_up());
    assert_eq!(
        eval(&format!("fma.rn.f64 %fd0, {0}, {0}, {1};", literal(1e200), literal(-1.0))),
        f64::INFINITY
    );
    assert_eq!(eval(&format!("mul.rz.f64 %fd0, {0}, {0};", literal(1e200))), f64::MAX);
    assert_eq!(eval(&format!("max.f64 %fd0, {}, {};", literal(f64::NAN), literal(-1.0))), -1.0);
}

#[test]
fn conversions_round_and_saturate() {
    let converted = |types: &str, source: &str| {
        let (register, bits) = match types.rsplit('.').next() {
            Some("f32") => ("%f1", "b32"),
            Some("f64") => ("%fd1", "b64"),
            Some("s64" | "u64") => ("%rd1", "b64"),
            _ => ("%r1", "b32"),
        };
        word(&format!("mov.{bits} {register}, {source}; cvt.{types} %r0, {register};"))
    };
    assert_eq!(converted("rni.s32.f32", &float(2.5)), 2);
    assert_eq!(converted("rpi.s32.f32", &float(2.1)), 3);
    assert_eq!(converted("rmi.s32.f32", &float(-2.1)) as i32, -3);
    assert_eq!(converted("rzi.u32.f32", &float(-5.0)), 0);
    assert_eq!(converted("rzi.s32.f32", &float(1e20)), i32::MAX as u32);
    assert_eq!(converted("rzi.s32.f32", "0f7FC00000"), 0);
    assert_eq!(converted("rzi.u8.f32", &float(300.0)), 255);
    assert_eq!(converted("u8.u32", "0x1FF"), 0xff);
    assert_eq!(converted("s8.u32", "0x80"), 0xffff_ff80);
    assert_eq!(converted("sat.u8.s32", "-5"), 0);
    assert_eq!(converted("sat.s8.s32", "200"), 127);
    assert_eq!(converted("s32.s16", "0x18000"), 0xffff_8000);
    assert_eq!(converted("u32.u64", "0x123456789"), 0x2345_6789);

    let rounded = |types: &str, source: &str| {
        f32::from_bits(word(&format!(
            "mov.b64 %rd1, {source}; mov.b64 %fd1, %rd1; cvt.{types} %f0, {}; mov.b32 %r0, %f0;",
            if types.ends_with("f64") { "%fd1" } else { "%rd1" }
        )))
    };
    assert_eq!(rounded("rn.f32.u64", "0xFFFFFF7FFFFFFFFF"), 1.844_674_3e19);
    assert_eq!(rounded("rz.f32.u64", "0xFFFFFFFFFFFFFFFF"), 1.844_674_3e19);
    assert_eq!(rounded("rp.f32.s64", "1"), 1.0);
    let third = format!("{:#x}", (1f64 / 3.0).to_bits());
    assert_eq!(rounded("rn.f32.f64", &third), 1.0 / 3.0);
    assert_eq!(rounded("rm.f32.f64", &third), (1.0f32 / 3.0).next_down());
}

#[test]
fn halves_convert_and_pack() {
    let half = |instruction: &str| word(&format!("{instruction} cvt.u32.u16 %r0, %h0;"));
    assert_eq!(half(&format!("mov.f32 %f1, {}; cvt.rn.f16.f32 %h0, %f1;", float(65519.0))), 0x7bff);
    assert_eq!(half(&format!("mov.f32 %f1, {}; cvt.rn.f16.f32 %h0, %f1;", float(65520.0))), 0x7c00);
    assert_eq!(half(&format!("mov.f32 %f1, {}; cvt.rz.f16.f32 %h0, %f1;", float(1e9))), 0x7bff);
    assert_eq!(half(&format!("mov.f32 %f1, {}; cvt.rn.f16.f32 %h0, %f1;", float(6e-8))), 1);
    assert_eq!(half(&format!("mov.f32 %f1, {}; cvt.rn.relu.f16.f32 %h0, %f1;", float(-2.0))), 0);
    assert_eq!(half(&format!("mov.f32 %f1, {}; cvt.rn.bf16.f32 %h0, %f1;", float(1.01))), 0x3f81);
    let pair =
        format!("mov.f32 %f1, {}; mov.f32 %f2, {}; cvt.rn.f16x2.f32 %r0, %f1, %f2;", float(1.0), float(-2.0));
    assert_eq!(word(&pair), 0x3c00_c000);
    assert_eq!(word("mov.b32 %r1, 0x3C004000; mul.f16x2 %r0, %r1, %r1;"), 0x3c00_4400);
    assert_eq!(word("mov.b32 %r1, 0x3C00BC00; max.f16x2 %r0, %r1, 0x00000000;"), 0x3c00_0000);
    assert_eq!(word("mov.b32 %r1, 0x3F804000; fma.rn.bf16x2 %r0, %r1, %r1, %r1;"), 0x4000_40c0);
    assert_eq!(word("mov.b16 %h1, 0x3C00; mov.b16 %h2, 0xBC00; mov.b32 %r0, {%h1, %h2};"), 0xbc00_3c00);
    assert_eq!(word("mov.b32 %r1, 0x12345678; mov.b32 {%h1, %h2}, %r1; cvt.u32.u16 %r0, %h2;"), 0x1234);
    assert!(truth("mov.b16 %h1, 0x3C00; setp.gt.f16 %p0, %h1, 0x3800;"));
}

#[test]
fn comparisons_of_numbers_and_none() {
    assert!(truth("setp.lt.s32 %p0, -1, 1;"));
    assert!(!truth("setp.lt.u32 %p0, -1, 1;"));
    assert!(truth("setp.hi.u32 %p0, -1, 1;"));
    assert!(!truth("setp.ne.f32 %p0, 0f7FC00000, 0f00000000;"));
    assert!(truth("setp.neu.f32 %p0, 0f7FC00000, 0f00000000;"));
    assert!(truth("setp.nan.f32 %p0, 0f7FC00000, 0f00000000;"));
    assert!(truth("setp.num.f64 %p0, 0d0000000000000000, 0d0000000000000000;"));
    assert!(truth("setp.eq.ftz.f32 %p0, 0f00000001, 0f00000000;"));
    assert!(truth("setp.eq.s32 %p1, 1, 1; setp.lt.and.s32 %p0, 1, 2, %p1;"));
    assert!(!truth("setp.eq.s32 %p1, 1, 1; setp.lt.and.s32 %p0, 1, 2, !%p1;"));
    assert!(truth("setp.lt.s32 %p1|%p0, 2, 1;"), "the second predicate is the opposite");
    assert_eq!(word("set.lt.u32.s32 %r0, 1, 2;"), u32::MAX);
    assert_eq!(word("set.gt.u32.f32 %r0, 0f00000000, 0f3F800000;"), 0);
    assert_eq!(word("set.lt.f32.s32 %f0, 1, 2; mov.b32 %r0, %f0;"), 1f32.to_bits());
    assert_eq!(word("slct.u32.s32 %r0, 5, 6, -1;"), 6);
    assert_eq!(word("slct.u32.f32 %r0, 5, 6, 0f80000000;"), 5);
    assert!(truth("testp.subnormal.f32 %p0, 0f00000001;"));
}

#[test]
fn narrow_accesses_extend_and_truncate() {
    assert_eq!(word("st.global.u32 [%slot+8], 0x8090; ld.global.s8 %r0, [%slot+8];"), 0xffff_ff90);
    assert_eq!(word("st.global.u32 [%slot+8], 0x8090; ld.global.u16 %r0, [%slot+8];"), 0x8090);
    assert_eq!(
        word("mov.u32 %r1, 0x12345678; st.global.u8 [%slot+8], %r1; ld.global.u32 %r0, [%slot+8];"),
        0x78
    );
    assert_eq!(long("st.global.u32 [%slot+8], -5; ld.global.s32 %rd0, [%slot+8];"), (-5i64) as u64);
    let vector = "mov.u32 %r1, 7; mov.u32 %r2, 8; st.global.v2.u32 [%slot+8], {%r1, %r2}; ld.global.v2.u32 {_, %r0}, [%slot+8];";
    assert_eq!(word(vector), 8);
}

#[test]
fn generic_addresses_reach_every_space() {
    let shared = ".shared .align 4 .b32 s[4]; .local .align 4 .b32 l[4];\n\
        mov.u64 %rd1, s; cvta.shared.u64 %rd2, %rd1; mov.u64 %rd3, l; cvta.local.u64 %rd4, %rd3;\n\
        st.u32 [%rd2+4], 11; st.u32 [%rd4+8], 22; ld.shared.u32 %r1, [s+4]; ld.local.u32 %r2, [l+8];\n\
        mad.lo.u32 %r0, %r1, 100, %r2;";
    assert_eq!(word(shared), 1122);
    let spaces = ".shared .b32 s; mov.u64 %rd1, s; cvta.shared.u64 %rd2, %rd1;\n\
        isspacep.shared %p1, %rd2; isspacep.global %p2, %rd2; isspacep.global %p3, %slot;\n\
        selp.u32 %r1, 100, 0, %p1; selp.u32 %r2, 10, 0, %p2; selp.u32 %r3, 1, 0, %p3;\n\
        add.u32 %r0, %r1, %r2; add.u32 %r0, %r0, %r3;";
    assert_eq!(word(spaces), 101);
    assert_eq!(
        long("mov.u64 %rd1, out; cvta.param.u64 %rd2, %rd1; ld.u64 %rd3, [%rd2]; sub.u64 %rd0, %slot, %rd3;"),
        0
    );
}

#[test]
fn atomics_give_the_old_value() {
    let both = |operation: &str, start: u32| {
        let slot = evaluate(
            &format!("st.global.u32 [%slot], {start}; {operation} st.global.u32 [%slot+8], %r0;"),
            1,
        )[0];
        (slot[0] as u32, slot[1] as u32)
    };
    assert_eq!(both("atom.global.add.u32 %r0, [%slot], 5;", 7), (12, 7));
    assert_eq!(both("atom.global.inc.u32 %r0, [%slot], 7;", 7), (0, 7));
    assert_eq!(both("atom.global.dec.u32 %r0, [%slot], 9;", 0), (9, 0));
    assert_eq!(both("atom.global.min.s32 %r0, [%slot], -1;", 3), (u32::MAX, 3));
    assert_eq!(both("atom.global.cas.b32 %r0, [%slot], 3, 9;", 3), (9, 3));
    assert_eq!(both("atom.acq_rel.gpu.global.exch.b32 %r0, [%slot], 1;", 3), (1, 3));
    assert_eq!(both("mov.u32 %r0, 4; red.global.xor.b32 [%slot], 6;", 3), (5, 4));
    let float_add = "mov.f32 %f1, 0f40000000; atom.global.add.f32 %f0, [%slot], %f1; mov.b32 %r0, %f0;";
    assert_eq!(both(float_add, 1f32.to_bits()), (3f32.to_bits(), 1f32.to_bits()));
    let halves = "mov.b32 %r1, 0x3C004000; atom.global.add.noftz.f16x2 %r0, [%slot], %r1;";
    assert_eq!(both(halves, 0x3c00_3c00), (0x4000_4200, 0x3c00_3c00));
    let lanes = evaluate("atom.global.add.u32 %r0, [%out], 1; bar.sync 0; st.global.u32 [%slot+8], %r0;", 64);
    let mut old: Vec<u64> = lanes.iter().map(|slot| slot[1]).collect();
    old.sort_unstable();
    assert_eq!(old, (0..64).collect::<Vec<u64>>());
    assert_eq!(lanes[0][0], 64);
}

#[test]
fn special_registers_of_a_thread() {
    let lanes = evaluate(
        "mov.u32 %r1, %laneid; mov.u32 %r2, %warpid; mov.u32 %r3, %lanemask_lt; mov.u32 %r4, %ntid.x;\n\
         mad.lo.u32 %r5, %r2, 1000, %r1; st.global.v2.u32 [%slot], {%r5, %r3};\n\
         mov.u32 %r6, WARP_SZ; st.global.v2.u32 [%slot+8], {%r4, %r6};",
        40,
    );
    for (thread, slot) in lanes.iter().enumerate() {
        let (lane, warp) = (thread as u64 % 32, thread as u64 / 32);
        assert_eq!(slot[0], ((1 << lane) - 1) << 32 | (warp * 1000 + lane));
        assert_eq!(slot[1], 32 << 32 | 40);
    }
    let clock = "mov.u64 %rd1, %clock64; mov.u64 %rd2, %globaltimer; nanosleep.u32 20; mov.u64 %rd3, %clock64;\n\
        setp.ge.u64 %p1, %rd3, %rd1; setp.gt.and.u64 %p0, %rd2, 1000000000, %p1;";
    assert!(truth(clock));
}
