//! Kernels for tests, as PTX: it runs on the simulated GPU and on real ones.

use super::Client;
use torpor_proto::command::{Command, ImageGlobal, Launch, LaunchShape};
use torpor_proto::error::CudaError;
use torpor_proto::ring::{NO_SLOT, encode_record};

/// `add_step(u32 *data, u32 count)` adds the global `step` (3) to each element; `spin(u32 *flag)` runs until the flag is
/// not 0; `poke(u32 *address)` writes there; `add_through(u32 **table, u32 count)` is `add_step` on what the first pointer in
/// a table points to, and `add_through_tables(u32 ***tables, u32 count)` that on the first table; `add_through_map(map, u32 count)` is `add_step` on what a tensor map of the simulated GPU in device memory
/// describes.
pub const PTX: &str = "
.version 8.0
.target sm_80
.address_size 64

.visible .global .align 4 .u32 step = 3;

.visible .entry add_step(.param .u64 data, .param .u32 count)
{
    .reg .pred %p;
    .reg .b32 %r<8>;
    .reg .b64 %d<5>;
    ld.param.u64 %d1, [data];
    ld.param.u32 %r1, [count];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.u32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p, %r5, %r1;
    @%p bra DONE;
    cvta.to.global.u64 %d2, %d1;
    mul.wide.u32 %d3, %r5, 4;
    add.u64 %d4, %d2, %d3;
    ld.global.u32 %r6, [step];
    ld.global.u32 %r7, [%d4];
    add.u32 %r7, %r7, %r6;
    st.global.u32 [%d4], %r7;
DONE:
    ret;
}

.visible .entry add_through(.param .u64 table, .param .u32 count)
{
    .reg .pred %p;
    .reg .b32 %r<8>;
    .reg .b64 %d<6>;
    ld.param.u64 %d1, [table];
    ld.param.u32 %r1, [count];
    cvta.to.global.u64 %d2, %d1;
    ld.global.u64 %d5, [%d2];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.u32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p, %r5, %r1;
    @%p bra DONE;
    cvta.to.global.u64 %d2, %d5;
    mul.wide.u32 %d3, %r5, 4;
    add.u64 %d4, %d2, %d3;
    ld.global.u32 %r6, [step];
    ld.global.u32 %r7, [%d4];
    add.u32 %r7, %r7, %r6;
    st.global.u32 [%d4], %r7;
DONE:
    ret;
}

.visible .entry add_through_tables(.param .u64 tables, .param .u32 count)
{
    .reg .pred %p;
    .reg .b32 %r<8>;
    .reg .b64 %d<6>;
    ld.param.u64 %d1, [tables];
    ld.param.u32 %r1, [count];
    cvta.to.global.u64 %d2, %d1;
    ld.global.u64 %d1, [%d2];
    cvta.to.global.u64 %d2, %d1;
    ld.global.u64 %d5, [%d2];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.u32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p, %r5, %r1;
    @%p bra DONE;
    cvta.to.global.u64 %d2, %d5;
    mul.wide.u32 %d3, %r5, 4;
    add.u64 %d4, %d2, %d3;
    ld.global.u32 %r6, [step];
    ld.global.u32 %r7, [%d4];
    add.u32 %r7, %r7, %r6;
    st.global.u32 [%d4], %r7;
DONE:
    ret;
}

.visible .entry add_through_map(.param .u64 map, .param .u32 count)
{
    .reg .pred %p;
    .reg .b32 %r<8>;
    .reg .b64 %d<6>;
    ld.param.u64 %d1, [map];
    ld.param.u32 %r1, [count];
    cvta.to.global.u64 %d2, %d1;
    ld.global.u64 %d5, [%d2];
    not.b64 %d5, %d5;
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.u32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p, %r5, %r1;
    @%p bra DONE;
    cvta.to.global.u64 %d2, %d5;
    mul.wide.u32 %d3, %r5, 4;
    add.u64 %d4, %d2, %d3;
    ld.global.u32 %r6, [step];
    ld.global.u32 %r7, [%d4];
    add.u32 %r7, %r7, %r6;
    st.global.u32 [%d4], %r7;
DONE:
    ret;
}

.visible .entry spin(.param .u64 flag)
{
    .reg .pred %p;
    .reg .b32 %r<2>;
    .reg .b64 %d<2>;
    ld.param.u64 %d1, [flag];
AGAIN:
    ld.volatile.global.u32 %r1, [%d1];
    setp.eq.u32 %p, %r1, 0;
    @%p bra AGAIN;
    ret;
}

.visible .entry poke(.param .u64 address)
{
    .reg .b32 %r<2>;
    .reg .b64 %d<2>;
    ld.param.u64 %d1, [address];
    mov.u32 %r1, 1;
    st.global.u32 [%d1], %r1;
    ret;
}
";

/// `tick(u32 *out)` adds 1 to the variable `counter` and stores that, read through the pointer in the variable `place`, times the
/// constant `factor` (5). It adds 1 to the managed variable `ticks` (100) too, and stores `out` in the managed `latest`.
pub const STATE_PTX: &str = "
.version 8.0
.target sm_80
.address_size 64

.visible .global .align 4 .u32 counter;
.visible .global .align 8 .u64 place = generic(counter);
.visible .const .align 4 .u32 factor = 5;
.visible .global .attribute(.managed) .align 8 .u64 latest;
.visible .global .attribute(.managed) .align 4 .u32 ticks = 100;

.visible .entry tick(.param .u64 out)
{
    .reg .b32 %r<5>;
    .reg .b64 %d<4>;
    ld.param.u64 %d1, [out];
    cvta.to.global.u64 %d2, %d1;
    atom.global.add.u32 %r1, [counter], 1;
    ld.global.u64 %d3, [place];
    ld.u32 %r2, [%d3];
    ld.const.u32 %r3, [factor];
    mul.lo.u32 %r4, %r2, %r3;
    st.global.u32 [%d2], %r4;
    ld.global.u32 %r1, [ticks];
    add.u32 %r1, %r1, 1;
    st.global.u32 [ticks], %r1;
    st.global.u64 [latest], %d1;
    ret;
}
";

/// `point(u64 *out)` stores what the variable `table` points to, a function and the kernel itself, then the addresses that the code
/// has for both, the number between the two in the table (41), how often it was launched, which `asked` counts, and what the
/// constant `chosen` points to: the function, too.
pub const POINTING_PTX: &str = "
.version 8.0
.target sm_80
.address_size 64

.func helper()
{
    ret;
}

.visible .entry point(.param .u64 out);
.visible .global .align 8 .u64 table[3] = {helper, 41, point};
.visible .global .align 8 .u64 asked;
.visible .const .align 8 .u64 chosen = helper;

.visible .entry point(.param .u64 out)
{
    .reg .b64 %d<10>;
    ld.param.u64 %d1, [out];
    cvta.to.global.u64 %d2, %d1;
    ld.const.u64 %d9, [chosen];
    ld.global.u64 %d3, [table];
    ld.global.u64 %d4, [table+16];
    mov.u64 %d5, helper;
    mov.u64 %d6, point;
    ld.global.u64 %d7, [table+8];
    ld.global.u64 %d8, [asked];
    add.u64 %d8, %d8, 1;
    st.global.u64 [asked], %d8;
    st.global.u64 [%d2], %d3;
    st.global.u64 [%d2+8], %d4;
    st.global.u64 [%d2+16], %d5;
    st.global.u64 [%d2+24], %d6;
    st.global.u64 [%d2+32], %d7;
    st.global.u64 [%d2+40], %d8;
    st.global.u64 [%d2+48], %d9;
    ret;
}
";

/// The number of the image with [`STATE_PTX`], and that of its kernel.
pub const STATE: u32 = 7;

/// The PTX as an image: with its NUL.
pub fn image() -> Vec<u8> {
    [PTX.as_bytes(), b"\0"].concat()
}

/// The parameter block of `add_step`.
pub fn add_step_parameters(data: u64, count: u32) -> Vec<u8> {
    [&data.to_le_bytes()[..], &count.to_le_bytes()].concat()
}

/// A launch of one-dimensional blocks.
pub fn launch(kernel: u32, stream: u32, blocks: u32, threads: u32, parameter_bytes: usize) -> Launch {
    Launch {
        shape: LaunchShape {
            kernel,
            stream,
            grid: [blocks, 1, 1],
            block: [threads, 1, 1],
            parameter_bytes: parameter_bytes as u32,
            ..LaunchShape::default()
        },
    }
}

/// A posted command as a graph's record.
pub fn record<C: Command>(out: &mut Vec<u64>, command: C, tail: &[u8]) {
    encode_record(out, C::OPCODE, NO_SLOT, command.words(), tail);
}

impl Client {
    /// Loads the image as 1 and its kernels: 1 is `add_step`, 2 `spin`, 3 `poke`, 4 `add_through`,
    /// 5 `add_through_map`, 6 `add_through_tables`.
    pub fn load_kernels(&mut self) {
        self.load_image(1, &image()).unwrap();
        let names = ["add_step", "spin", "poke", "add_through", "add_through_map", "add_through_tables"];
        for (kernel, name) in (1..).zip(names) {
            self.resolve(1, kernel, name).unwrap();
        }
    }

    /// Loads [`STATE_PTX`] and its kernel.
    pub fn load_state(&mut self) {
        self.load_image(STATE, &[STATE_PTX.as_bytes(), b"\0"].concat()).unwrap();
        self.resolve(STATE, STATE, "tick").unwrap();
    }

    /// Posts `tick`.
    pub fn tick(&mut self, out: u64, stream: u32) {
        self.launch_at(STATE, out, stream);
    }

    /// The address and length of a variable.
    pub fn variable(&mut self, image: u32, name: &str) -> Result<(u64, u64), CudaError> {
        let (reply, _) = self.ask_all(ImageGlobal { image, reserved: 0 }, name.as_bytes())?;
        Ok((reply.address, reply.bytes))
    }

    /// The bytes of a managed variable of [`STATE_PTX`], as the program sees them.
    pub fn managed_variable(&mut self, name: &str) -> Vec<u8> {
        let (address, bytes) = self.variable(STATE, name).unwrap();
        assert!(self.host.for_managed_variables().contains(address, bytes), "{address:#x}");
        self.read_host(address - self.host.address, bytes as usize)
    }

    /// Posts `add_step`.
    pub fn add_step(&mut self, data: u64, count: u32, stream: u32) {
        let parameters = add_step_parameters(data, count);
        self.post(launch(1, stream, count.div_ceil(64), 64, parameters.len()), &parameters);
    }

    /// Posts `add_through`.
    pub fn add_through(&mut self, table: u64, count: u32, stream: u32) {
        let parameters = add_step_parameters(table, count);
        self.post(launch(4, stream, count.div_ceil(64), 64, parameters.len()), &parameters);
    }

    /// Posts `add_through_map`.
    pub fn add_through_map(&mut self, map: u64, count: u32, stream: u32) {
        let parameters = add_step_parameters(map, count);
        self.post(launch(5, stream, count.div_ceil(64), 64, parameters.len()), &parameters);
    }

    /// Posts `add_through_tables`.
    pub fn add_through_tables(&mut self, tables: u64, count: u32, stream: u32) {
        let parameters = add_step_parameters(tables, count);
        self.post(launch(6, stream, count.div_ceil(64), 64, parameters.len()), &parameters);
    }

    /// Posts a kernel whose only parameter is an address.
    pub fn launch_at(&mut self, kernel: u32, address: u64, stream: u32) {
        self.post(launch(kernel, stream, 1, 1, 8), &address.to_le_bytes());
    }

    /// Keeps the GPU busy in stream 0 until [`Self::stop_spinning`]. The flag lies in the staging area, which is page-locked in the
    /// background: a copy waits for that, a kernel does not.
    pub fn spin(&mut self) {
        let flag = self.write_host(0, &[0; 64]);
        self.copy(flag + 32, flag, 4, 0);
        self.settle().unwrap();
        self.launch_at(2, flag, 0);
    }

    /// Ends the kernel of [`Self::spin`].
    pub fn stop_spinning(&self) {
        self.write_host(0, &[1, 0, 0, 0]);
    }

    /// So many 32-bit words from the device.
    pub fn words(&mut self, address: u64, count: usize) -> Vec<u32> {
        let bytes = self.download(address, count * 4);
        bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
    }
}
