//! What is noted of a worker's answers.

use super::*;
use crate::server::keeper::Keeper;
use crate::server::workers::inherited::InheritedClient;
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

/// One client that the server before has left, which held its state then or did not.
fn inherited(holds: bool) -> (Served, Arc<MappedChannel>) {
    let state = state_file::write(&Checkpoint::default()).unwrap();
    if !holds {
        Pledge::of(&state).unwrap().make_void(Void::Freed);
    }
    let channel = memory().channel.clone();
    let (its, state) = (Some(channel.clone()), Some(Arc::new(state)));
    let client = InheritedClient { client: 1, channel: its, state };
    (Served::new(&Keeper::default(), vec![client]), channel)
}

/// Whom the worker does not serve, once it has said all.
fn unconfirmed(served: &mut Served) -> Vec<u64> {
    let known = served.take_unconfirmed(CudaError::LAUNCH_FAILED);
    known.into_iter().map(|(client, _)| client).collect()
}

#[test]
fn who_was_let_go_of_for_the_server_before_goes_on_from_what_it_is() {
    let detached = || from_worker::Body::Detached(Detached { client: 1 });
    let (mut served, channel) = inherited(true);
    served.hear(detached());
    assert_eq!(unconfirmed(&mut served), [1]);
    let (done, mut answer) = oneshot::channel();
    assert!(served.order(Order::Detach { client: 1, done }).is_some(), "for itself it asks again");
    served.hear(detached());
    answer.try_recv().unwrap();
    // What was said before it was let go of counts no more.
    let (mut served, _) = inherited(true);
    served.hear(from_worker::Body::Attached(Attached { client: 1, is_coming: false }));
    served.hear(detached());
    assert_eq!(unconfirmed(&mut served), [1]);
    let (mut served, _) = inherited(true);
    let mut coming = served.coming(1).unwrap();
    served.hear(detached());
    assert!(matches!(coming.answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    assert_eq!(unconfirmed(&mut served), [1]);
    assert_eq!(channel.sticky_error(), None);
    // It has come back since.
    let (mut served, _) = inherited(true);
    served.hear(detached());
    served.hear(from_worker::Body::Attached(Attached { client: 1, is_coming: false }));
    assert!(unconfirmed(&mut served).is_empty());
}

#[test]
fn who_was_let_go_of_and_is_nothing_that_is_known_is_told_and_let_go_of_again() {
    let (mut served, channel) = inherited(false);
    served.hear(from_worker::Body::Detached(Detached { client: 1 }));
    assert!(unconfirmed(&mut served).is_empty());
    assert_eq!(channel.sticky_error(), Some(CudaError::LAUNCH_FAILED));
    let (done, _) = oneshot::channel();
    assert!(served.order(Order::Detach { client: 1, done }).is_some());
}

#[test]
fn a_refusal_that_the_server_before_did_not_hear_is_no_end_of_a_client() {
    let fault = || from_worker::Body::ClientFault(ClientFault { client: 1, reason: "no room".to_owned() });
    let (mut served, channel) = inherited(true);
    served.hear(fault());
    assert_eq!((unconfirmed(&mut served), channel.sticky_error()), (vec![1], None));
    let (mut served, channel) = inherited(false);
    served.hear(fault());
    assert_eq!(channel.sticky_error(), Some(CudaError::LAUNCH_FAILED), "it was served");
}

#[test]
fn nobody_waits_for_a_client_to_be_given_up_that_the_worker_does_not_serve() {
    let (mut served, _) = inherited(true);
    let (done, mut answer) = oneshot::channel();
    let order = Order::Release { client: 1, while_waiting: false, link: 0, party: None, done };
    assert!(served.order(order).is_some());
    assert_eq!(unconfirmed(&mut served), [1]);
    assert!(answer.try_recv().unwrap().is_err());
}

#[test]
fn who_is_given_up_is_not_about_to_come_any_more() {
    let (mut served, _) = inherited(true);
    let mut coming = served.coming(1).unwrap();
    assert!(served.released(1, create_sealed("state", 8).unwrap()).is_some());
    served.bury(&Death::of("died"));
    assert!(matches!(coming.answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
}
