//! Ctrl-C and its like: told to the demo, which then cleans up, instead of ending it on the spot.

use super::process::Event;
use rustix::process::Signal;
use std::io;
use std::process::exit;
use std::sync::mpsc::Sender;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Sends an event at the first signal that asks for the end. A second one ends the process: the functions and the
/// server notice that by themselves, a little later.
///
/// # Errors
/// What the kernel says.
pub fn watch(events: Sender<Event>) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let caught = |signal_caught: Signal| {
        let _inside = runtime.enter();
        signal(SignalKind::from_raw(signal_caught.as_raw()))
    };
    let (mut interrupt, mut terminate, mut hang_up) =
        (caught(Signal::INT)?, caught(Signal::TERM)?, caught(Signal::HUP)?);
    std::thread::spawn(move || {
        runtime.block_on(async {
            let mut told = false;
            loop {
                let signal = tokio::select! {
                    _ = interrupt.recv() => Signal::INT,
                    _ = terminate.recv() => Signal::TERM,
                    _ = hang_up.recv() => Signal::HUP,
                };
                if told || events.send(Event::Interrupted(signal)).is_err() {
                    exit(exit_code(signal).into());
                }
                told = true;
            }
        });
    });
    Ok(())
}

/// As a shell shows the end by a signal.
pub fn exit_code(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(1)
}
