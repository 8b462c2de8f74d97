//! One job, from its question to its answer.

use crate::compiler::wire::{self, Answer, Job, Life};
use crate::driver::{Device, link};
use std::io::{self, Read, Write};
use torpor_proto::image::bundle::{Bundle, Input, InputKind};
use torpor_proto::image::relocate::Immovable;
use torpor_proto::image::{Code, choice_for, code_for};

/// Says whose job this is, and answers the one question that comes over a connection. Without a device nothing is compiled, and that is the
/// answer.
///
/// # Errors
/// The connection's, or it is no question.
pub(crate) fn answer(
    connection: &mut (impl Read + Write),
    life: Life,
    device: Result<&Device, Answer>,
) -> io::Result<()> {
    life.send(connection)?;
    let (job, sm, bytes) = wire::hear(connection)?;
    let answer = match job {
        Job::Unpack => unpack(&bytes, sm),
        // The driver reads text as far as its NUL.
        Job::Compile if bytes.last() != Some(&0) => Answer::Damaged,
        Job::Compile => {
            let inputs = vec![Input { kind: InputKind::Ptx, bytes: &bytes }];
            made_of(&Bundle { choices: Vec::new(), inputs }, device)
        }
        Job::Link => Bundle::parse(&bytes).map_or(Answer::Damaged, |bundle| made_of(&bundle, device)),
    };
    answer.send(connection)
}

fn made_of(bundle: &Bundle<'_>, device: Result<&Device, Answer>) -> Answer {
    match device {
        Ok(device) => link(device, bundle).map_or_else(Answer::Refused, Answer::Cubin),
        Err(reason) => reason,
    }
}

fn unpack(container: &[u8], sm: u32) -> Answer {
    match code_for(container, sm) {
        Ok(Code::Cubin(cubin)) => Answer::Cubin(cubin),
        Ok(Code::Ptx(text)) => Answer::Ptx(text),
        Err(Immovable::Code(0)) => Answer::Nothing,
        Err(Immovable::Code(_)) => choice_for(container, sm)
            .map_or(Answer::Damaged, |(cubins, container)| Answer::Choice(cubins, container)),
        Err(_) => Answer::Damaged,
    }
}
