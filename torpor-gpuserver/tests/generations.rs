//! What the host store had of a client before stays there until the server has the state that tells of what it has now: whenever a worker
//! dies, its client goes on from one of the two.

mod served;
mod server_support;
mod worker_support;

use served::program::{Program, kill_worker, start, start_with};
use server_support::server::{Server, eventually};
use torpor_proto::command::MemoryFree;
use torpor_proto::control::admin::ReportStoreRequest;

const MIB: u64 = 1 << 20;

/// A bus on which 32 MiB take 160 ms.
const SLOW: [(&str, &str); 2] =
    [("TORPOR_SIMGPU_PROFILE", "h200:host_gbps=0.2"), ("TORPOR_SIMGPU_TIME", "real")];

/// What the host store has.
fn used_mib(server: &Server) -> u64 {
    server.admin(async |mut api| api.report_store(ReportStoreRequest {}).await).unwrap().used_bytes / MIB
}

#[test]
fn a_client_whose_worker_dies_while_it_is_saved_again_goes_on_from_what_was_saved_before() {
    let (server, _settings) = start_with(1, "", &SLOW);
    let mut program = Program::start(&server, "f");
    let data = program.client.allocate(0, 32 * MIB).unwrap();
    let chunks: Vec<u64> = (0..16).map(|chunk| data + chunk * 2 * MIB).collect();
    let mut expected = 0;
    let used = || used_mib(&server);
    let mut change = |client: &mut worker_support::Client| {
        for (number, &chunk) in (1..).zip(&chunks) {
            client.add_step(chunk, number, 0);
        }
        client.settle().unwrap();
        expected += 3;
    };
    change(&mut program.client);
    program.wait_until_covered(&server);
    assert_eq!(used(), 32);
    change(&mut program.client);
    eventually("one piece is saved anew, and another one is about to be", || used() == 64);
    kill_worker(&server, 0);
    for (number, &chunk) in (1..).zip(&chunks) {
        assert_eq!(
            program.client.words(chunk, number as usize + 1),
            [vec![expected; number as usize], vec![0]].concat()
        );
    }
    program.wait_until_covered(&server);
    eventually("nothing is left of the other generation", || used() == 32);
    assert_eq!(program.error(), None);
}

#[test]
fn a_state_holds_while_equals_of_its_chunks_are_found_and_after_it_knows_them_by_their_former_numbers() {
    let (server, _settings) = start(1, "");
    let used = || used_mib(&server);
    let mut programs: Vec<_> = (0..2).map(|number| Program::start(&server, &format!("f{number}"))).collect();
    for program in &mut programs {
        let data = program.client.allocate(0, 4 * MIB).unwrap();
        program.client.upload(data, &[5; 1000]);
        program.client.upload(data + 2 * MIB, &[program.client.id as u8; 100]);
        program.wait_until_covered(&server);
    }
    eventually("equal chunks are found", || used() == 6);
    assert_eq!(server.times_said("would not survive this worker now"), 0);
    kill_worker(&server, 0);
    // One gives up what it has before it has looked for it, the other goes on with it.
    let data = programs[0].client.arena.address;
    programs[0].client.post(MemoryFree { address: data }, &[]);
    eventually("what both have is the other's", || used() == 4);
    let id = programs[1].client.id as u8;
    let client = &mut programs[1].client;
    let data = client.arena.address;
    client.add_step(data + 2 * MIB + 400, 1, 0);
    assert_eq!(client.download(data, 1001), [[5; 1000].as_slice(), &[0]].concat());
    assert_eq!(client.download(data + 2 * MIB, 101), [[id; 100].as_slice(), &[0]].concat());
    assert_eq!(client.words(data + 2 * MIB + 400, 1), [3]);
    programs[1].wait_until_covered(&server);
    assert!(programs.iter().all(|program| program.error().is_none()));
    assert_eq!(server.times_said("does not refer to chunk"), 0);
    eventually("nothing is kept twice", || used() == 4);
}
