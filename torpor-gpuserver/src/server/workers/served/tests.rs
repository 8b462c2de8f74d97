//! What is noted of a worker's answers.

use super::*;
use crate::server::workers::order::ClientMemory;
use crate::state_file::{self, Pledge, Void};
use torpor_proto::control::migration::Checkpoint;
use torpor_proto::control::worker::{
    Attach, Attached, ClientFault, ClientUsage, Detached, DeviceFault, NotReleased as NotReleasedMessage,
    Usage,
};
use torpor_proto::mapping::create_sealed;

fn memory() -> Arc<ClientMemory> {
    let (channel, channel_file) = MappedChannel::create().unwrap();
    let host_file = create_sealed("host", 4096).unwrap();
    Arc::new(ClientMemory { channel: Arc::new(channel), channel_file, host_file })
}

fn attach(
    served: &mut Served,
    client: u64,
) -> (Arc<MappedChannel>, oneshot::Receiver<Result<(), NotServed>>) {
    let (memory, (done, answer)) = (memory(), oneshot::channel());
    let channel = memory.channel.clone();
    let attach = Attach { client, ..Attach::default() };
    let outgoing = served.order(Order::Attach { attach, memory, state: None, done }).unwrap();
    assert_eq!(outgoing.attachment.descriptors().len(), 2);
    (channel, answer)
}

#[test]
fn a_client_is_served_when_the_worker_says_so_and_gone_when_it_says_so() {
    let mut served = Served::default();
    let (_, mut attached) = attach(&mut served, 5);
    assert!(attached.try_recv().is_err());
    served.hear(from_worker::Body::Attached(Attached { client: 5, is_coming: false }));
    attached.try_recv().unwrap().unwrap();
    let (done, mut detached) = oneshot::channel();
    assert!(served.order(Order::Detach { client: 5, done }).is_some());
    assert!(detached.try_recv().is_err());
    served.hear(from_worker::Body::Detached(Detached { client: 5 }));
    detached.try_recv().unwrap();
    assert_eq!(served.count(), 0);
}

#[test]
fn a_client_that_breaks_the_protocol_fails_alone() {
    let mut served = Served::default();
    let ((bad, _answer), (good, _)) = (attach(&mut served, 1), attach(&mut served, 2));
    served.hear(from_worker::Body::Attached(Attached { client: 1, is_coming: false }));
    served.hear(from_worker::Body::ClientFault(ClientFault { client: 1, reason: "nonsense".to_owned() }));
    assert_eq!(bad.sticky_error(), Some(CudaError::LAUNCH_FAILED));
    assert_eq!(good.sticky_error(), None);
}

#[test]
fn a_client_that_is_not_served_yet_does_not_fail_with_its_worker() {
    let mut served = Served::default();
    let ((first, mut refused), (second, mut buried)) = (attach(&mut served, 1), attach(&mut served, 2));
    served.hear(from_worker::Body::ClientFault(ClientFault { client: 1, reason: "no room".to_owned() }));
    assert_eq!(refused.try_recv().unwrap().unwrap_err().to_string(), "no room");
    assert_eq!(first.sticky_error(), None);
    served.fail(CudaError::LAUNCH_FAILED);
    assert_eq!(second.sticky_error(), None);
    served.bury(&Death::of("died"));
    assert_eq!(buried.try_recv().unwrap().unwrap_err().to_string(), "died");
}

#[test]
fn a_usage_in_parts_is_answered_whole() {
    let mut served = Served::default();
    let ask = |served: &mut Served| {
        let (done, answer) = oneshot::channel();
        served.order(Order::ReportUsage { done }).unwrap();
        answer
    };
    let part = |client, more| {
        let clients = vec![ClientUsage { client, ..ClientUsage::default() }];
        from_worker::Body::Usage(Usage { clients, more, ..Usage::default() })
    };
    let (mut first, mut second) = (ask(&mut served), ask(&mut served));
    served.hear(part(1, true));
    assert!(first.try_recv().is_err());
    served.hear(part(2, false));
    served.hear(part(3, false));
    let clients = |usage: Usage| usage.clients.iter().map(|usage| usage.client).collect::<Vec<_>>();
    assert_eq!(clients(first.try_recv().unwrap()), [1, 2]);
    assert_eq!(clients(second.try_recv().unwrap()), [3]);
}

#[test]
fn a_released_client_is_nobody_s_any_more() {
    let mut served = Served::default();
    let release = |served: &mut Served| {
        let (done, answer) = oneshot::channel();
        let order = Order::Release { client: 1, while_waiting: false, link: 0, party: None, done };
        (served.order(order).is_some(), answer)
    };
    let (asked, mut answer) = release(&mut served);
    assert!(!asked && answer.try_recv().unwrap().is_err(), "it is not there");
    let (channel, _) = attach(&mut served, 1);
    served.hear(from_worker::Body::Attached(Attached { client: 1, is_coming: false }));
    let (_, mut answer) = release(&mut served);
    let reason = "it has its turn".to_owned();
    served.hear(from_worker::Body::NotReleased(NotReleasedMessage { client: 1, reason }));
    assert_eq!(answer.try_recv().unwrap().unwrap_err().to_string(), "it has its turn");
    let (_, mut answer) = release(&mut served);
    assert!(served.released(1, create_sealed("state", 8).unwrap()).is_none());
    assert!(answer.try_recv().unwrap().is_ok());
    served.fail(CudaError::LAUNCH_FAILED);
    assert_eq!((served.count(), channel.sticky_error()), (0, None));
}

#[test]
fn a_lost_context_fails_everybody_with_its_code_even_after_the_worker_died() {
    let mut served = Served::default();
    let (channel, _) = attach(&mut served, 1);
    served.hear(from_worker::Body::Attached(Attached { client: 1, is_coming: false }));
    served.hear(from_worker::Body::DeviceFault(DeviceFault { code: 700, ..DeviceFault::default() }));
    served.fail(CudaError::LAUNCH_FAILED);
    assert_eq!(channel.sticky_error(), Some(CudaError::ILLEGAL_ADDRESS));
    let (done, mut detached) = oneshot::channel();
    served.order(Order::Detach { client: 1, done });
    served.bury(&Death::of("died"));
    detached.try_recv().unwrap();
    let (done, mut detached) = oneshot::channel();
    assert!(served.order(Order::Detach { client: 1, done }).is_none());
    detached.try_recv().unwrap();
}

#[test]
fn only_who_has_done_nothing_since_goes_on_before_the_process_is_gone() {
    let mut served = Served::default();
    let states = [1, 2, 3].map(|client| {
        let (_, mut attached) = attach(&mut served, client);
        served.hear(from_worker::Body::Attached(Attached { client, is_coming: false }));
        attached.try_recv().unwrap().unwrap();
        let state = state_file::write(&Checkpoint::default()).unwrap();
        served.covered(client, state.try_clone().unwrap());
        state
    });
    let [_idle, in_request, void] = states.map(|state| Pledge::of(&state).unwrap());
    in_request.outgrow();
    void.make_void(Void::Freed);
    let clients =
        |some: Vec<(u64, Arc<OwnedFd>)>| some.into_iter().map(|(client, _)| client).collect::<Vec<_>>();
    assert_eq!(clients(served.take_quiet()), [1]);
    assert!(!served.has(1) && served.has(2) && served.has(3));
    assert_eq!(clients(served.survivors()), [2]);
}
