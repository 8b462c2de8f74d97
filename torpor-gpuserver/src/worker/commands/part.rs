//! Questions about parts of the GPU, which the driver answers: nothing of the client's is changed.

use crate::driver::Part;
use crate::worker::session::Session;
use crate::worker::streams::parts::Levels;
use torpor_proto::command::{
    MOST_PART_GROUPS, Outcome, PartCommands, PartLook, PartShape, PartSplit, PartSplitReply, Ticket,
};
use torpor_proto::error::CudaError;

impl PartCommands for Session {
    fn part_look(&mut self, _: PartLook, words: &[u8], _: Ticket) -> Result<Outcome<PartShape>, CudaError> {
        let part = self.streams.parts.look(&Levels::read(words)?)?;
        Ok(Outcome::done(part.shape()))
    }

    fn part_split(
        &mut self,
        command: PartSplit,
        words: &[u8],
        _: Ticket,
    ) -> Result<Outcome<PartSplitReply>, CudaError> {
        let PartSplit { least, flags, groups, .. } = command;
        if groups > MOST_PART_GROUPS {
            return Err(CudaError::INVALID_VALUE);
        }
        let part = self.streams.parts.look(&Levels::read(words)?)?;
        let device = &self.shared.device;
        if groups == 0 {
            let groups = part.groups(device, (flags, least))?;
            return Ok(Outcome::done(PartSplitReply { groups, ..PartSplitReply::default() }));
        }
        let (found, rest) = part.split(device, groups, (flags, least))?;
        // All are alike (cuda.h).
        let each = found.first().map(Part::shape).unwrap_or_default();
        let groups = found.len() as u32;
        Ok(Outcome::done(PartSplitReply { groups, reserved: 0, each, rest: rest.shape() }))
    }
}
