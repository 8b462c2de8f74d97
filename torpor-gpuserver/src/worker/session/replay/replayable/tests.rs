use super::*;
use torpor_proto::command::{Command, EventExport, HostUnlock, ImageGlobal, LaunchShape, TextTake};
use torpor_proto::ring::encode_record;

const MIB: u64 = 1 << 20;
const HOST: AddressRange = AddressRange { address: 0x4000_0000_0000, bytes: 64 * MIB };
const STAGING: AddressRange = AddressRange { address: HOST.address, bytes: 8 * MIB };
const PIECE: u64 = STAGING.address + 4 * MIB;
const PINNED: u64 = STAGING.address + STAGING.bytes;
const DEVICE: u64 = 0x1000_0000_0000;

/// What a client has posted, one command after the other, and which of them were answered.
struct Log {
    taken: Vec<Taken>,
    answers: Answers,
    graphs: HashMap<u32, Reach>,
}

impl Log {
    fn new() -> Self {
        Self { taken: Vec::new(), answers: Answers::none(), graphs: HashMap::new() }
    }

    fn add<C: Command>(mut self, command: C, slot: u16, tail: &[u8]) -> Self {
        let mut words = Vec::new();
        encode_record(&mut words, C::OPCODE, slot, command.words(), tail);
        let end = self.taken.last().map_or(1000, |last| last.end) + words.len() as u64;
        self.taken.push(Taken { record: Record::from_words(&words).unwrap(), end });
        self
    }

    fn posts<C: Command>(self, command: C) -> Self {
        self.add(command, NO_SLOT, &[])
    }

    /// Asks, in slot 1, and has not been answered.
    fn asks<C: Command>(self, command: C) -> Self {
        self.add(command, 1, &[])
    }

    /// Asks, and has been answered.
    fn hears<C: Command>(self, command: C) -> Self {
        let mut log = self.add(command, 0, &[]);
        let end = log.taken.last().unwrap().end;
        log.answers.give(0, end, end);
        log
    }

    fn copies(self, destination: u64, source: u64, stream: u32) -> Self {
        self.posts(Copy { destination, source, bytes: MIB, stream, reserved: 0 })
    }

    fn launches(self, parameter: u64) -> Self {
        let shape = LaunchShape { kernel: 1, parameter_bytes: 8, ..LaunchShape::default() };
        self.add(Launch { shape }, NO_SLOT, &parameter.to_le_bytes())
    }

    fn plan(&self) -> Result<Vec<How>, Unrepeatable> {
        Ok(self.steps()?.into_iter().map(|step| step.how).collect())
    }

    /// Which commands others are waited for before.
    fn waits(&self) -> Vec<bool> {
        self.steps().unwrap().into_iter().map(|step| step.waits).collect()
    }

    fn steps(&self) -> Result<Vec<Step>, Unrepeatable> {
        let (answers, graphs) = (&self.answers, self.graphs.clone());
        plan(&self.taken, &mut super::Client { host: HOST, staging: STAGING, answers, graphs })
    }
}

fn synchronize(stream: u32) -> StreamSynchronize {
    StreamSynchronize { stream, reserved: 0 }
}

use How::{Afresh, Quietly, Skip};

#[test]
fn a_request_that_has_not_been_answered_is_done_again_as_it_was() {
    let request = Log::new()
        .copies(DEVICE, STAGING.address, 1)
        .posts(StagingMark { sequence: 1 })
        .launches(DEVICE)
        .asks(MemoryAllocate { address: DEVICE, bytes: 2 * MIB })
        .launches(DEVICE)
        .copies(PIECE, DEVICE, 1)
        .asks(synchronize(1));
    assert_eq!(request.plan(), Ok(vec![Afresh; 7]));
}

#[test]
fn what_the_program_has_is_neither_answered_nor_written_again_but_waited_for() {
    let requests = Log::new()
        .hears(MemoryAllocate { address: DEVICE, bytes: 2 * MIB })
        .hears(Ping {})
        .copies(DEVICE, STAGING.address, 1)
        .launches(DEVICE)
        .copies(PIECE, DEVICE, 1)
        .hears(synchronize(1))
        .copies(DEVICE, STAGING.address, 1)
        .launches(DEVICE)
        .copies(PIECE, DEVICE, 1)
        .asks(synchronize(1));
    let first = [Quietly, Skip, Afresh, Afresh, Skip, Skip];
    assert_eq!(requests.plan(), Ok([&first[..], &[Afresh; 4]].concat()));
    let before_the_second = [false, false, false, false, false, false, true, false, false, false];
    assert_eq!(requests.waits(), before_the_second);
}

#[test]
fn nothing_is_waited_for_before_what_was_posted_before_the_answer() {
    let mut log = Log::new().launches(DEVICE).asks(synchronize(1)).launches(DEVICE).launches(DEVICE);
    let ends: Vec<u64> = log.taken.iter().map(|taken| taken.end).collect();
    log.answers.give(1, ends[1], ends[2]);
    assert_eq!(log.waits(), [false, false, false, true]);
    log.answers.give(1, ends[1], ends[3]);
    assert_eq!(log.waits(), [false; 4]);
    // Another answer in the same slot: nobody knows any more when this one was given.
    let mut log = log.asks(Ping {});
    log.answers.give(1, log.taken[4].end, log.taken[4].end);
    assert_eq!(log.waits(), [false, false, true, false, false]);
}

#[test]
fn each_piece_of_a_download_is_judged_by_the_wait_behind_it() {
    let next = PIECE + MIB;
    let pieces = |log: Log| {
        log.copies(PIECE, DEVICE, 1).hears(synchronize(1)).copies(next, DEVICE, 1).asks(synchronize(1))
    };
    assert_eq!(pieces(Log::new()).plan(), Ok(vec![Skip, Skip, Afresh, Afresh]));
    // Another thread's, of another stream, says nothing of this one's.
    let other = Log::new().copies(PIECE, DEVICE, 1).hears(synchronize(2)).asks(synchronize(1));
    assert_eq!(other.plan(), Ok(vec![Afresh, Skip, Afresh]));
    let all = Log::new().copies(PIECE, DEVICE, 1).hears(ContextSynchronize::ALL).asks(synchronize(1));
    assert_eq!(all.plan(), Ok(vec![Skip, Skip, Afresh]));
}

#[test]
fn page_locked_memory_is_read_again_until_the_program_may_have_changed_it() {
    let upload = || Log::new().copies(DEVICE, PINNED, 1).launches(DEVICE);
    assert_eq!(upload().asks(synchronize(1)).plan(), Ok(vec![Afresh; 3]));
    // Something else, that was answered, tells nothing of work.
    assert_eq!(upload().hears(MemoryInfo {}).plan(), Ok(vec![Afresh, Afresh, Skip]));
    for told in [
        upload().hears(synchronize(1)),
        upload().hears(synchronize(2)),
        upload().hears(ContextSynchronize::ALL),
        upload().hears(EventQuery { event: 1, reserved: 0 }),
        upload().hears(StreamQuery { stream: 1, reserved: 0 }),
        upload().hears(EventSynchronize { event: 1, reserved: 0 }),
    ] {
        assert_eq!(told.plan(), Err(Unrepeatable::Source));
    }
    let earlier = Log::new().hears(synchronize(1)).copies(DEVICE, PINNED, 1);
    assert_eq!(earlier.plan(), Ok(vec![Skip, Afresh]));
}

#[test]
fn page_locked_memory_is_not_written_again_once_it_is_the_program_s() {
    let download = || Log::new().copies(PINNED, DEVICE, 1);
    assert_eq!(download().asks(synchronize(1)).plan(), Ok(vec![Afresh; 2]));
    assert_eq!(download().hears(synchronize(1)).plan(), Ok(vec![Skip, Skip]));
    assert_eq!(download().hears(ContextSynchronize::ALL).plan(), Ok(vec![Skip, Skip]));
    for unclear in [
        download().hears(synchronize(2)),
        download().hears(EventQuery { event: 1, reserved: 0 }),
        download().hears(EventSynchronize { event: 1, reserved: 0 }),
    ] {
        assert_eq!(unclear.plan(), Err(Unrepeatable::Destination));
    }
    let fill = Fill { address: PINNED, width: 8, height: 1, element_bytes: 1, stream: 1, ..Fill::default() };
    assert_eq!(Log::new().posts(fill).hears(synchronize(1)).plan(), Ok(vec![Skip, Skip]));
    // From one page-locked place to another: the program may have changed what was read.
    assert_eq!(
        Log::new().copies(PINNED, PINNED + MIB, 1).hears(synchronize(1)).plan(),
        Err(Unrepeatable::Source)
    );
}

#[test]
fn a_word_that_the_program_may_have_seen_is_not_written_again() {
    let word = |address, value| WordWrite { address, value, stream: 1, bytes: 8 };
    let writes = |address| Log::new().posts(word(address, 1));
    assert_eq!(writes(DEVICE).hears(synchronize(2)).plan(), Ok(vec![Afresh, Skip]));
    assert_eq!(writes(PINNED).hears(synchronize(1)).plan(), Ok(vec![Skip, Skip]));
    assert_eq!(writes(PINNED).asks(synchronize(1)).plan(), Err(Unrepeatable::Signal), "it may look there");
    assert_eq!(writes(PINNED).hears(synchronize(2)).plan(), Err(Unrepeatable::Signal));
    assert_eq!(Log::new().posts(word(DEVICE, PINNED)).plan(), Err(Unrepeatable::ReachesHost));
}

#[test]
fn an_image_is_uploaded_again_from_what_is_staged() {
    let upload = ImageUpload { source: STAGING.address, bytes: 8, ..ImageUpload::default() };
    let load = ImageLoad::default();
    assert_eq!(Log::new().hears(load).posts(upload).hears(load).plan(), Ok(vec![Quietly, Afresh, Quietly]));
}

#[test]
fn a_box_of_rows_is_no_staged_piece() {
    let rows = |destination, source| {
        let copy = CopyStrided {
            destination,
            source,
            width_bytes: 8,
            height: 2,
            depth: 1,
            ..CopyStrided::default()
        };
        Log::new().posts(copy).hears(synchronize(9)).plan()
    };
    assert_eq!(rows(DEVICE, STAGING.address), Err(Unrepeatable::Source));
    assert_eq!(rows(PIECE, DEVICE), Err(Unrepeatable::Destination));
    assert_eq!(rows(DEVICE, DEVICE), Ok(vec![Afresh, Skip]));
}

#[test]
fn whose_kernels_reach_page_locked_memory_is_told() {
    assert_eq!(Log::new().launches(PINNED + 4).plan(), Err(Unrepeatable::ReachesHost));
    let graph = |parameter: u64| {
        let mut nodes = Vec::new();
        let shape = LaunchShape { kernel: 1, parameter_bytes: 8, ..LaunchShape::default() };
        encode_record(
            &mut nodes,
            Launch::OPCODE,
            NO_SLOT,
            Launch { shape }.words(),
            &parameter.to_le_bytes(),
        );
        let append = GraphAppend { graph: 1, reserved: 0 };
        Log::new().add(append, NO_SLOT, bytemuck::cast_slice(&nodes))
    };
    let launch = GraphLaunch { graph: 1, stream: 1 };
    assert_eq!(graph(PINNED).plan(), Ok(vec![Afresh]), "it is not launched");
    assert_eq!(graph(PINNED).posts(launch).plan(), Err(Unrepeatable::ReachesHost));
    assert_eq!(graph(DEVICE).posts(launch).plan(), Ok(vec![Afresh; 2]));
    let mut older = Log::new().posts(launch);
    older.graphs.insert(1, Reach::Host);
    assert_eq!(older.plan(), Err(Unrepeatable::ReachesHost));
}

#[test]
fn what_one_worker_alone_could_give_is_not_done_twice() {
    let name = |log: Log| match log.plan() {
        Err(Unrepeatable::Command(name)) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(name(Log::new().hears(ImageGlobal { image: 1, reserved: 0 })), "ImageGlobal");
    let elsewhere = ImageUpload { source: PINNED, bytes: 8, ..ImageUpload::default() };
    assert_eq!(name(Log::new().posts(elsewhere)), "ImageUpload");
    assert_eq!(name(Log::new().hears(TextTake {})), "TextTake");
    assert_eq!(name(Log::new().asks(HostUnlock { address: PINNED })), "HostUnlock");
    assert_eq!(name(Log::new().asks(EventExport { event: 1, reserved: 0 })), "EventExport");
}

#[test]
fn what_nobody_can_tell_and_what_is_no_command_is_told() {
    let mut torn = Log::new().asks(synchronize(1));
    torn.answers.tear(1, torn.taken[0].end);
    assert_eq!(torn.plan(), Err(Unrepeatable::Torn));
    let mut words = Vec::new();
    encode_record(&mut words, 9999, NO_SLOT, &[], &[]);
    let nonsense = Taken { record: Record::from_words(&words).unwrap(), end: 2 };
    let log = Log { taken: vec![nonsense], ..Log::new() };
    assert_eq!(log.plan(), Err(Unrepeatable::Malformed(Malformed::Opcode(9999))));
}
