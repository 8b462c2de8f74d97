//! What a supervisor does while its worker serves: it passes on what the worker is asked and what it says, and sees when it falls
//! silent or ends.

use crate::policy::event::What;
use crate::server::clients::ClientId;
use crate::server::store::WorkerId;
use crate::server::workers::gpu::stopped;
use crate::server::workers::heartbeat::{HEARTBEAT, Heartbeat};
use crate::server::workers::leaving::gone;
use crate::server::workers::ledger::Seat;
use crate::server::workers::order::{Attachment, Outgoing};
use crate::server::workers::outbox::send_all;
use crate::server::workers::process::WorkerProcess;
use crate::server::workers::served::fault_code;
use crate::server::workers::status::State;
use crate::server::workers::supervisor::Supervisor;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use torpor_proto::control::worker::{FromWorker, Ping, ToWorker, from_worker, to_worker};

/// How long a worker whose context is lost may take to end: its sessions have 30 ms to tell their clients.
const FAULT_GRACE: Duration = Duration::from_millis(250);

/// How long one that is killed may take to end, until it is given up.
const KILL_GRACE: Duration = Duration::from_secs(2);

/// What may still run of a worker that serves no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threads {
    /// Anything.
    Running,
    /// Nothing, as its end of the socket is closed: its process is ending.
    Gone,
    /// Nothing that reaches what it shares with others: it waits to be killed.
    Ended,
}

/// Why a worker serves no longer.
pub(super) enum End {
    Stopped,
    /// Nobody gives it orders any more.
    Closed,
    Died {
        /// For people.
        reason: String,
        /// What may still run of it.
        threads: Threads,
    },
}

impl Supervisor {
    /// Until the worker ends, or the server is to end.
    pub(super) async fn serve(
        &mut self,
        worker: &WorkerProcess,
        at_store: WorkerId,
        outbox: &mpsc::UnboundedSender<Outgoing>,
        outgoing: mpsc::UnboundedReceiver<Outgoing>,
    ) -> End {
        let mut sending = pin!(send_all(&worker.socket, outgoing));
        let (mut deadline, mut is_killed) = (None, false);
        let mut heartbeat = Heartbeat::default();
        let mut looks = interval(HEARTBEAT);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = worker.socket.peek::<FromWorker>() => match message {
                    Ok(Some((FromWorker { body: Some(body), number }, descriptors))) => {
                        self.log(&body);
                        if let from_worker::Body::DeviceFault(fault) = &body {
                            self.lost_context = Some(fault_code(fault.code));
                            self.accused = fault.clone();
                            fault.ran_ahead.iter().for_each(|function| self.site.learned.ran_ahead(function));
                            deadline.get_or_insert(Instant::now() + FAULT_GRACE);
                            // It serves no client any more, though it is still there.
                            self.publish(|status| status.state = State::Starting);
                        }
                        if let from_worker::Body::Pong(pong) = &body {
                            let driver_silent = Duration::from_millis(pong.driver_silent_ms);
                            heartbeat.hear(driver_silent, std::time::Instant::now());
                            self.note_silence(&heartbeat);
                            self.store.expect(at_store, pong.unsaved_bytes);
                            if pong.working > 1 {
                                self.site.words.events.tell(What::Crowded { gpu: self.site.at });
                            }
                        }
                        if let from_worker::Body::SlabReady(ready) = &body {
                            let (peers, at) = (self.peers(), self.site.at);
                            peers.into_iter().for_each(|peers| peers.hear_host(at, ready.bytes_per_second));
                        }
                        match self.store.hear(at_store, number, body) {
                            Some(from_worker::Body::Released(released)) => {
                                let Some(state) = descriptors.into_iter().next() else {
                                    return self.died("it gave a client up without its state", Threads::Running);
                                };
                                if let Some(state) = self.served.released(released.client, state) {
                                    self.restore_released(released.client, state);
                                }
                            }
                            Some(from_worker::Body::Covered(covered)) => {
                                let state = descriptors.into_iter().next();
                                if let Some(state) = state {
                                    self.served.covered(covered.client, state);
                                    // Not before: the state that is kept calls chunks as they are called.
                                    if covered.by_numbers {
                                        self.store.forget_names(ClientId(covered.client));
                                    }
                                }
                            }
                            Some(from_worker::Body::Lent(lent)) => {
                                if let Some(peers) = self.peers() {
                                    peers.hear_lent(self.site.at, lent, descriptors);
                                }
                            }
                            Some(from_worker::Body::Borrowed(borrowed)) => {
                                let linked =
                                    self.peers().and_then(|peers| peers.hear_borrowed(self.site.at, borrowed));
                                linked.into_iter().for_each(|what| self.site.words.events.tell(what));
                            }
                            Some(from_worker::Body::Happened(happened)) => {
                                self.site.words.events.tell_turn(self.site.at, happened);
                            }
                            Some(from_worker::Body::Waiting(waiting)) => {
                                self.site.words.events.tell(What::Waiting { client: waiting.client });
                            }
                            Some(from_worker::Body::Home(home)) => {
                                // Nobody hears it when the server is ending.
                                let _ = self.site.words.homes.send((ClientId(home.client), home.device));
                            }
                            Some(from_worker::Body::RankTurn(said)) => {
                                let (client, number, phase) = (said.client, said.number, said.phase().into());
                                self.site.words.events.tell(What::RankSaid { client, number, phase });
                            }
                            Some(from_worker::Body::MemoryWanted(wanted)) => {
                                self.seat.iter().for_each(|seat| seat.want(wanted));
                            }
                            Some(from_worker::Body::MemoryYielded(yielded)) => {
                                self.seat.iter().for_each(|seat| seat.yielded(yielded));
                            }
                            Some(from_worker::Body::Usage(mut usage)) => {
                                let times = std::mem::take(&mut usage.times);
                                self.times(|known| known.hear(times));
                                self.served.hear(from_worker::Body::Usage(usage));
                            }
                            Some(from_worker::Body::Seek(seek)) => {
                                // Nobody hears it when the server is ending.
                                let _ = self.site.words.seeking.send((ClientId(seek.client), ClientId(seek.exporter)));
                            }
                            Some(from_worker::Body::Quiet(_)) if self.lost_context.is_some() => {
                                return self.died("nothing of it reaches what it shares any more", Threads::Ended);
                            }
                            Some(from_worker::Body::Attached(attached)) if attached.is_coming => {
                                self.await_coming(attached.client);
                            }
                            // What one before asked for and did not hear is no answer.
                            Some(from_worker::Body::Resumed(resumed)) if resumed.server == self.site.recipe.server => {
                                self.store.resumed(at_store);
                                self.seat.iter_mut().for_each(Seat::resumed);
                                self.restore_unconfirmed();
                            }
                            // It is about to end, and the client is asked for at the next one.
                            Some(from_worker::Body::Attached(_)) if self.lost_context.is_some() => {}
                            Some(body) => {
                                self.has_served |= matches!(body, from_worker::Body::Attached(_));
                                self.served.hear(body);
                            }
                            None => {}
                        }
                        // Not before: what comes of it is kept by now, or can be found out again.
                        if let Err(error) = worker.socket.pass_over() {
                            return self.died(&format!("its socket failed: {error}"), Threads::Running);
                        }
                    }
                    Ok(Some((FromWorker { body: None, .. }, _))) => drop(worker.socket.pass_over()),
                    Ok(None) => return self.died("it closed its socket", Threads::Gone),
                    Err(error) => return self.died(&format!("its socket failed: {error}"), Threads::Running),
                },
                epitaph = gone(&mut self.leaving) => self.has_left(&epitaph),
                order = self.inbox.recv() => match order {
                    Some(order) => {
                        if let Some(message) = self.take_order(order) {
                            // The receiver is in `sending`, which is over only when this is.
                            let _ = outbox.send(message);
                        }
                    }
                    None => return End::Stopped,
                },
                _ = looks.tick() => {
                    if heartbeat.look(std::time::Instant::now()) {
                        let message = ToWorker { body: Some(to_worker::Body::Ping(Ping {})) };
                        // The receiver is in `sending`, as below.
                        let _ = outbox.send(Outgoing { message, attachment: Attachment::Nothing });
                    }
                    self.note_silence(&heartbeat);
                    if self.close_if_deserted() {
                        return End::Closed;
                    }
                }
                error = &mut sending => {
                    return self.died(&format!("it takes no messages: {error}"), Threads::Running);
                }
                _ = stopped(&mut self.site.stop) => return End::Stopped,
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    if is_killed {
                        return self.died("it did not end", Threads::Running);
                    }
                    worker.kill();
                    (is_killed, deadline) = (true, Some(Instant::now() + KILL_GRACE));
                }
            }
        }
    }

    /// Tells when worker or driver fall silent, and when they answer again.
    fn note_silence(&self, heartbeat: &Heartbeat) {
        let silence = heartbeat.silence(std::time::Instant::now());
        let (before, pid) = {
            let status = self.status.borrow();
            (status.silence, status.worker_pid)
        };
        match (before.map(|before| before.who), silence.map(|silence| silence.who)) {
            (before, now) if before == now => return,
            (_, Some(_)) => {
                let said = silence.map(|silence| silence.to_string()).unwrap_or_default();
                tracing::error!(gpu = self.site.index, pid, "{said}");
            }
            (_, None) => tracing::info!(gpu = self.site.index, pid, "worker and driver answer again"),
        }
        self.publish(|status| status.silence = silence);
    }

    fn died(&self, what: &str, threads: Threads) -> End {
        let reason = match self.lost_context {
            Some(error) => format!("its context is lost: {error}; {what}"),
            None => what.to_owned(),
        };
        End::Died { reason, threads }
    }

    fn log(&self, body: &from_worker::Body) {
        match body {
            from_worker::Body::ClientFault(fault) => {
                let (client, reason) = (fault.client, fault.reason.clone());
                self.site.words.events.tell(What::ClientFailed { client, reason });
                tracing::warn!(
                    gpu = self.site.index,
                    client = fault.client,
                    "client served no longer: {}",
                    fault.reason
                );
            }
            from_worker::Body::DeviceFault(fault) => {
                let (clients, error) = (self.served.count(), fault_code(fault.code));
                tracing::error!(
                    gpu = self.site.index,
                    clients,
                    "the GPU's context is lost, {error}: {}",
                    fault.reason
                );
            }
            _ => {}
        }
    }
}
