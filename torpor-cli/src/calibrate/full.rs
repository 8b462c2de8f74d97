//! GPUs without room: memory that comes back finds others' in its way, as it does where more functions are used than fit.

use crate::calibrate::node::Node;
use crate::error::CliError;
use torpor_proto::control::admin::{Function, Gpu};

impl Node {
    /// Loads other functions than the measured ones, each where it was last, until no GPU has room for so much, as far as the node has such
    /// functions: whoever comes then has to put somebody out. Who cannot come, as its process has just ended, say, takes no room.
    pub(super) fn fill(&mut self, measured: &[&str], bytes: u64) -> Result<(), CliError> {
        let (functions, gpus) = (self.functions()?, self.gpus()?);
        for function in fillers(&functions, &gpus, measured, bytes) {
            if let Err(error) = self.load(function, None) {
                eprintln!("torpor: {function} does not take the room that it could: {error}");
            }
        }
        Ok(())
    }
}

/// Which functions take the GPUs' room.
fn fillers<'a>(functions: &'a [Function], gpus: &[Gpu], measured: &[&str], bytes: u64) -> Vec<&'a str> {
    let is_away = |one: &&Function| one.resident_bytes == 0 && one.allocated_bytes > 0;
    let mut chosen = Vec::new();
    for gpu in gpus {
        let its = || functions.iter().filter(|one| one.gpus.contains(&gpu.index));
        let used: u64 = its().map(|one| one.resident_bytes).sum();
        let mut room = gpu.limit_bytes.saturating_sub(used);
        for one in its().filter(is_away).filter(|one| !measured.contains(&&*one.name)) {
            if room >= bytes && one.allocated_bytes <= room {
                room -= one.allocated_bytes;
                chosen.push(&*one.name);
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, gpu: u32, resident_bytes: u64, allocated_bytes: u64) -> Function {
        Function {
            name: name.to_owned(),
            gpus: vec![gpu],
            resident_bytes,
            allocated_bytes,
            ..Function::default()
        }
    }

    #[test]
    fn others_that_are_away_take_all_the_room_that_one_who_comes_would_need() {
        let functions = [
            function("measured", 0, 0, 10),
            function("there", 0, 10, 10),
            function("a", 0, 0, 10),
            function("large", 2, 0, 30),
            function("b", 2, 0, 10),
            function("nothing", 0, 0, 0),
            function("c", 2, 0, 10),
            function("d", 0, 0, 10),
        ];
        let gpus = [0, 2].map(|index| Gpu { index, limit_bytes: 25, ..Gpu::default() });
        let chosen = |bytes| fillers(&functions, &gpus, &["measured"], bytes);
        assert_eq!(chosen(10), ["a", "b", "c"]);
        assert!(chosen(30).is_empty(), "there is none as it is");
        assert!(fillers(&functions[..2], &gpus, &["measured"], 10).is_empty(), "there is nobody");
    }
}
