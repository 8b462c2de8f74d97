//! The end of a context: who is told, who may have been it, and who goes on at the next worker.

use crate::worker::gpu::Shared;
use crate::worker::mailbox::{Link, Overdue};
use crate::worker::sync::lock;
use std::cmp::Reverse;
use std::sync::atomic::Ordering;
use torpor_proto::control::worker::{DeviceFault, from_worker};
use torpor_proto::error::CudaError;

/// Whose fault the end of a context is.
#[derive(Clone, Copy)]
enum Blame {
    /// This client's, which is told this.
    On(u64, CudaError),
    /// That of one of those that have work.
    OnSomeone,
    /// That of one of those, or nobody's.
    OnSomeoneOrNobody,
}

impl Shared {
    /// The context is lost: every client fails that does not survive that, the server is told, and the worker ends.
    pub(crate) fn lose(&self, error: CudaError, reason: String) {
        self.end(error, reason, Blame::OnSomeone);
    }

    fn end(&self, error: CudaError, reason: String, blame: Blame) {
        // Others who meet the same error wait here: the end of a client must not be what the server hears first.
        let _one_at_a_time = lock(&self.losing);
        if self.lost().is_some() {
            return;
        }
        tracing::error!("the GPU's context is lost, {error}: {reason}");
        if error == CudaError::ASSERT {
            self.tell_assertions();
        }
        let suspects = self.suspects();
        let culprit = match (blame, &suspects[..]) {
            (Blame::On(client, told), _) => Some((client, told)),
            (Blame::OnSomeone, &[alone]) => Some((alone, error)),
            _ => None,
        };
        // It is told, whatever its state leads to.
        if let Some((culprit, told)) = culprit
            && let Some(channel) = self.link(culprit).as_ref().and_then(|link| link.channel.get())
        {
            channel.fail(told);
        }
        self.fail_lost_clients(error);
        let ran_ahead = if error == CudaError::ILLEGAL_ADDRESS { self.ran_ahead() } else { Vec::new() };
        self.tell(from_worker::Body::DeviceFault(DeviceFault {
            code: error.0,
            reason,
            ran_ahead,
            suspects,
            culprit: culprit.map(|(client, _)| client),
            is_unsure: matches!(blame, Blame::OnSomeoneOrNobody),
        }));
        // SYNC POINT lost
        self.lost.store(error.0, Ordering::Release);
        // Again, for who came meanwhile.
        self.fail_lost_clients(error);
        self.server.stop_hearing();
    }

    /// A kernel of the client does not end: the worker does. Where the client is not sure to be the culprit, the server tries all that
    /// may be.
    pub(crate) fn condemn(&self, link: &Link, overdue: &Overdue) {
        let Link { client, function, .. } = link;
        let Overdue { timeout, is_certain, .. } = overdue;
        let has = if *is_certain { "has" } else { "may have" };
        let reason = format!(
            "a kernel of function {function} (client {client}) {has} run for longer than its kernel_timeout of {timeout:?}, \
             which only the end of this GPU's worker ends"
        );
        let blame = match is_certain {
            true => Blame::On(*client, CudaError::LAUNCH_TIMEOUT),
            false => Blame::OnSomeoneOrNobody,
        };
        self.end(CudaError::LAUNCH_FAILED, reason, blame);
    }

    /// Functions with kernels that may have run before all of their memory was there.
    fn ran_ahead(&self) -> Vec<String> {
        let links = self.links();
        let ahead = links.values().filter(|link| link.ran_ahead.load(Ordering::Relaxed) != 0);
        ahead.map(|link| link.function.clone()).collect()
    }

    /// Leaves what the driver says of a failed assertion to those whose kernels it may have been.
    fn tell_assertions(&self) {
        let Some(console) = &self.console else { return };
        // It fails, and the driver has said all by then.
        let _ = self.device.synchronize();
        let text = console.assertions();
        for link in self.links().values() {
            let own = text.split_inclusive(|&byte| byte == b'\n').filter(|line| link.may_have_said(line));
            if let Some(channel) = link.channel.get() {
                channel.leave_last_words(&own.flatten().copied().collect::<Vec<u8>>());
            }
        }
    }

    /// Who has its turn and work, any of which may have ended the context: those first that have had most turns.
    fn suspects(&self) -> Vec<u64> {
        let links = self.links();
        let mut working: Vec<_> = links.values().filter(|link| link.may_run()).collect();
        working.sort_by_key(|link| Reverse(link.usage.requests.load(Ordering::Relaxed)));
        working.into_iter().map(|link| link.client).collect()
    }

    /// One whose state holds goes on at the next worker.
    fn fail_lost_clients(&self, error: CudaError) {
        for link in self.links().values() {
            if let Some(channel) = link.channel.get()
                && !link.survives.load(Ordering::Relaxed)
            {
                channel.fail(error);
            }
            link.wake();
        }
    }
}
