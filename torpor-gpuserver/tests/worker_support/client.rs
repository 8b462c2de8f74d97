//! A client as the shim is one: it writes commands into the ring and waits for answers in slots.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use torpor_proto::channel::MappedChannel;
use torpor_proto::command::{
    Command, ContextSynchronize, Copy, ImageLoad, ImageLoadReply, ImageUpload, KernelResolve, Kind,
    MemoryAllocate, StagingMark,
};
use torpor_proto::completion::Waited;
use torpor_proto::control::worker::Attach;
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;
use torpor_proto::ring::{NO_SLOT, Producer};
use torpor_proto::staging::{DOWNLOAD_BYTES, download_area, upload_area};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of the worker under test.
pub struct Client {
    /// Its number.
    pub id: u64,
    /// Its device addresses.
    pub arena: AddressRange,
    /// Its host addresses.
    pub host: AddressRange,
    /// Its channel.
    pub channel: MappedChannel,
    host_file: OwnedFd,
    channel_file: OwnedFd,
    producer: Producer,
    next_slot: u16,
    marks: u64,
    staging: AddressRange,
    staged: u64,
}

impl Client {
    pub fn new(attach: &Attach, channel: MappedChannel, channel_file: OwnedFd, host_file: OwnedFd) -> Self {
        Self {
            id: attach.client,
            arena: AddressRange { address: attach.arena_address, bytes: attach.arena_bytes },
            host: AddressRange { address: attach.host_address, bytes: attach.host_bytes },
            channel,
            host_file,
            channel_file,
            producer: Producer::new(),
            next_slot: 0,
            marks: 0,
            staging: AddressRange { address: attach.host_address, bytes: attach.staging_bytes },
            staged: 0,
        }
    }

    /// The channel once more, for another thread.
    pub fn second_channel(&self) -> MappedChannel {
        MappedChannel::open(&self.channel_file).unwrap()
    }

    /// Posts a command of any kind, as raw as can be. False if the ring stays full for a second.
    pub fn push(&mut self, opcode: u16, slot: u16, body: &[u64], tail: &[u8]) -> bool {
        let began = Instant::now();
        while !self.producer.push(self.channel.ring(), &self.channel.words, opcode, slot, body, tail) {
            if began.elapsed() > Duration::from_secs(1) {
                return false;
            }
            self.producer.wait_for_room(self.channel.ring(), Duration::from_millis(10));
        }
        true
    }

    /// Overwrites the ring's count of written words, the first field of its counters.
    pub fn forge_tail(&self, tail: u64) {
        let base = std::ptr::from_ref(&*self.channel).addr();
        let offset = std::ptr::from_ref(self.channel.ring()).addr() - base;
        assert_eq!(rustix::io::pwrite(&self.channel_file, &tail.to_le_bytes(), offset as u64).unwrap(), 8);
    }

    /// Fills the ring with a byte.
    pub fn scribble(&self, byte: u8) {
        let base = std::ptr::from_ref(&*self.channel).addr();
        let offset = self.channel.words.as_ptr().addr() - base;
        let nonsense = vec![byte; size_of_val(&self.channel.words)];
        assert_eq!(rustix::io::pwrite(&self.channel_file, &nonsense, offset as u64).unwrap(), nonsense.len());
        torpor_proto::ring::wake_consumer(self.channel.ring());
    }

    /// Posts a posted command.
    pub fn post<C: Command>(&mut self, command: C, tail: &[u8]) {
        assert_eq!(C::KIND, Kind::Posted, "{}", C::NAME);
        assert!(self.push(C::OPCODE, NO_SLOT, command.words(), tail), "the ring is full");
    }

    /// Posts an awaited command and returns its slot.
    pub fn ask_later<C: Command>(&mut self, command: C, tail: &[u8]) -> u16 {
        assert_eq!(C::KIND, Kind::Awaited, "{}", C::NAME);
        let slot = self.next_slot;
        self.next_slot = (slot + 1) % self.channel.slots.len() as u16;
        self.channel.slots[usize::from(slot)].prepare();
        assert!(self.push(C::OPCODE, slot, command.words(), tail), "the ring is full");
        slot
    }

    /// Waits for the answer in a slot: its bytes.
    pub fn await_slot(&self, slot: u16) -> Result<Vec<u8>, CudaError> {
        let began = Instant::now();
        let slot = &self.channel.slots[usize::from(slot)];
        while !slot.is_done() && slot.sleep(Duration::from_millis(100)) == Waited::TimedOut {
            // The server answers nobody.
            self.channel.sticky_error().map_or(Ok(()), Err)?;
            assert!(began.elapsed() < PATIENCE, "no answer");
        }
        let mut words = Vec::new();
        let (status, bytes) = slot.take(&mut words);
        status?;
        Ok(words.iter().flat_map(|word| word.to_le_bytes()).take(bytes).collect())
    }

    /// Whether the answer in a slot is there.
    pub fn is_answered(&self, slot: u16) -> bool {
        self.channel.slots[usize::from(slot)].is_done()
    }

    /// Asks and waits: the fixed part of the answer, and the variable part.
    pub fn ask_all<C: Command>(&mut self, command: C, tail: &[u8]) -> Result<(C::Reply, Vec<u8>), CudaError> {
        let slot = self.ask_later(command, tail);
        let mut bytes = self.await_slot(slot)?;
        let tail = bytes.split_off(size_of::<C::Reply>());
        Ok((bytemuck::pod_read_unaligned(&bytes), tail))
    }

    /// Asks and waits.
    pub fn ask<C: Command>(&mut self, command: C) -> Result<C::Reply, CudaError> {
        self.ask_all(command, &[]).map(|(reply, _)| reply)
    }

    /// Waits for everything, and returns the first deferred error since the last call.
    pub fn settle(&mut self) -> Result<(), CudaError> {
        self.ask(ContextSynchronize::ALL)?;
        self.channel.take_deferred_error().map_or(Ok(()), Err)
    }

    /// Device memory at an offset of the arena.
    pub fn allocate(&mut self, offset: u64, bytes: u64) -> Result<u64, CudaError> {
        let address = self.arena.address + offset;
        self.ask(MemoryAllocate { address, bytes })?;
        Ok(address)
    }

    /// Writes into the host range, as a program would.
    pub fn write_host(&self, offset: u64, bytes: &[u8]) -> u64 {
        assert_eq!(rustix::io::pwrite(&self.host_file, bytes, offset).unwrap(), bytes.len());
        self.host.address + offset
    }

    /// Reads from the host range.
    pub fn read_host(&self, offset: u64, bytes: usize) -> Vec<u8> {
        let mut contents = vec![0; bytes];
        assert_eq!(rustix::io::pread(&self.host_file, &mut contents, offset).unwrap(), bytes);
        contents
    }

    /// Bytes of memory behind the host range.
    pub fn host_bytes_in_use(&self) -> u64 {
        rustix::fs::fstat(&self.host_file).unwrap().st_blocks as u64 * 512
    }

    /// Posts a copy.
    pub fn copy(&mut self, destination: u64, source: u64, bytes: u64, stream: u32) {
        self.post(Copy { destination, source, bytes, stream, reserved: 0 }, &[]);
    }

    /// Stages bytes for an upload, as the shim does: behind those before, until the area is full.
    pub fn stage(&mut self, bytes: &[u8]) -> u64 {
        let (area, length) = (upload_area(self.staging), bytes.len() as u64);
        let offset = self.staged % area.bytes;
        let skipped = if offset + length > area.bytes { area.bytes - offset } else { 0 };
        let (position, began) = (self.staged + skipped + length, Instant::now());
        let is_free = |client: &Self| {
            let staging = client.channel.staging();
            position - staging.released() <= area.bytes && staging.reserve(position, area.bytes)
        };
        if !is_free(self) {
            self.post(StagingMark { sequence: self.staged }, &[]);
            while !is_free(self) {
                assert!(began.elapsed() < PATIENCE, "the staging area stays full");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let offset = (self.staged + skipped) % area.bytes;
        self.staged = position;
        self.write_host(offset, bytes)
    }

    /// Copies bytes to the device through the staging area.
    pub fn upload(&mut self, address: u64, bytes: &[u8]) {
        // At most half of it: its end may have to be skipped.
        let most_bytes = upload_area(self.staging).bytes as usize / 2;
        for (address, piece) in (address..).step_by(most_bytes).zip(bytes.chunks(most_bytes)) {
            let staged = self.stage(piece);
            self.copy(address, staged, piece.len() as u64, 0);
            self.settle().unwrap();
        }
    }

    /// Copies bytes from the device through the staging area.
    pub fn download(&mut self, address: u64, bytes: usize) -> Vec<u8> {
        let piece_bytes = download_area(self.staging).bytes as usize;
        let mut downloaded = Vec::with_capacity(bytes);
        while downloaded.len() < bytes {
            let (from, length) =
                (address + downloaded.len() as u64, piece_bytes.min(bytes - downloaded.len()));
            self.copy(self.piece(0), from, length as u64, 0);
            self.settle().unwrap();
            downloaded.extend(self.read_host(self.piece(0) - self.host.address, length));
        }
        downloaded
    }

    /// Where a piece of a download arrives.
    pub fn piece(&self, number: u64) -> u64 {
        download_area(self.staging).address + number * DOWNLOAD_BYTES
    }

    /// Posts a staging mark and returns its number.
    pub fn mark(&mut self) -> u64 {
        self.marks += 1;
        self.post(StagingMark { sequence: self.marks }, &[]);
        self.marks
    }

    /// Gives an image a number, uploading it if the node does not know it.
    pub fn load_image(&mut self, image: u32, contents: &[u8]) -> Result<(), CudaError> {
        let hash = hash(contents);
        let load = ImageLoad { image, reserved: 0, bytes: contents.len() as u64, hash };
        if self.ask(load)? == (ImageLoadReply { known: 1 }) {
            return Ok(());
        }
        for (index, piece) in contents.chunks(64 << 10).enumerate() {
            let source = self.stage(piece);
            let offset = (index * (64 << 10)) as u64;
            let total_bytes = contents.len() as u64;
            self.post(ImageUpload { hash, total_bytes, offset, source, bytes: piece.len() as u64 }, &[]);
            self.settle()?;
        }
        match self.ask(load)?.known {
            1 => Ok(()),
            _ => Err(CudaError::NOT_FOUND),
        }
    }

    /// Gives a kernel a number: its parameters.
    pub fn resolve(&mut self, image: u32, kernel: u32, name: &str) -> Result<Vec<u8>, CudaError> {
        self.ask_all(KernelResolve { image, kernel }, name.as_bytes()).map(|(_, parameters)| parameters)
    }
}

/// An image's hash, as it travels.
pub fn hash(contents: &[u8]) -> [u64; 4] {
    let bytes: [[u8; 8]; 4] = bytemuck::cast(*blake3::hash(contents).as_bytes());
    bytes.map(u64::from_le_bytes)
}
