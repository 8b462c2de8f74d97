//! JIT options: what a program asks of the driver's compiler, and where it wants to be told what that says.
//!
//! An option's value stands in the place of a pointer, whatever it is. Those of the code go to the node with it
//! ([`Choice`]); the GPU that code is for is that of the node, debuggers have nothing to read here, and what is compiled is kept whatever
//! a program wishes.

use super::argument::{In, Out};
use crate::core::CudaResult;
use torpor_proto::image::bundle::{Choice, CompilerOption};

/// `CU_JIT_INFO_LOG_BUFFER` and `CU_JIT_ERROR_LOG_BUFFER`, each with the option that says how many bytes it has, and gives how many were
/// written. Source: `cuda.h`; `cudaJitOption` has the same numbers.
const INFO_LOG: (u32, u32) = (3, 4);
const ERROR_LOG: (u32, u32) = (5, 6);

/// `CU_JIT_WALL_TIME`: a `float` of milliseconds is written.
const WALL_TIME: u32 = 2;

/// What an option is if nobody asks: code for which a program says so is the same as without.
const DEFAULTS: [Choice; 2] = [
    Choice { option: CompilerOption::OptimizationLevel, value: 4 },
    Choice { option: CompilerOption::OverrideDirectives, value: 0 },
];

/// The JIT options of a call.
#[derive(Default)]
pub(crate) struct JitOptions {
    choices: Vec<Choice>,
    errors: Option<Log>,
}

/// A log of the program's: a text with its NUL.
struct Log {
    text: Out<u8>,
    /// Bytes that may be written, the NUL's among them.
    room: u32,
    /// Where it is told how many were.
    length: Out<usize>,
}

// SAFETY: places in the program's memory, which it keeps until the invocation of the linker is destroyed that they were given to (cuLinkCreate),
// whichever thread that is used by.
unsafe impl Send for Log {}

impl JitOptions {
    /// Reads options, and says that logs are empty and that no time has passed: programs print them without asking how long they are.
    ///
    /// # Errors
    /// `INVALID_VALUE` if there are none where the program says so.
    pub(crate) fn read(count: u32, options: In<u32>, values: Out<usize>) -> CudaResult<Self> {
        let options = options.slice(count as usize)?;
        let [info, errors] = [INFO_LOG, ERROR_LOG];
        let told = [WALL_TIME, info.0, info.1, errors.0, errors.1];
        if !options.iter().any(|&option| told.contains(&option) || CompilerOption::numbered(option).is_some())
        {
            // Those of which nothing is read may have no values.
            return Ok(Self::default());
        }
        let given = values.slice(options.len())?;
        let place_of = |wanted| options.iter().position(|&option| option == wanted);
        let log = |(text, length)| {
            let length = place_of(length)?;
            let text = place_of(text).map(|at| values.within::<Out<u8>>(at * size_of::<usize>()).get());
            // The size is a 32-bit number, whatever its neighbours in the place of a pointer are.
            let room = given[length] as u32;
            let text = text.and_then(Result::ok).unwrap_or_else(Out::nowhere);
            Some(Log { text, room, length: values.within(length * size_of::<usize>()) })
        };
        let [_, errors] = [info, errors].map(|kind| log(kind).inspect(|log| log.say(b"")));
        if let Some(at) = place_of(WALL_TIME) {
            values.within::<f32>(at * size_of::<usize>()).put_if_wanted(0.0);
        }
        let mut choices: Vec<Choice> = Vec::new();
        for (&option, &value) in options.iter().zip(&given) {
            let Some(option) = CompilerOption::numbered(option) else { continue };
            let choice = Choice { option, value: value as u32 };
            choices.retain(|other| other.option != option);
            if !DEFAULTS.contains(&choice) {
                choices.push(choice);
            }
        }
        Ok(Self { choices, errors })
    }

    /// What they ask of code.
    pub(crate) fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// Tells what the compiler says of errors.
    pub(crate) fn tell_errors(&self, said: &[u8]) {
        if let Some(log) = &self.errors {
            log.say(said);
        }
    }
}

impl Log {
    fn say(&self, text: &[u8]) {
        let kept = match self.room {
            0 => 0,
            room => text.len().min(room as usize - 1),
        };
        if self.room > 0 && !self.text.is_null() {
            // Null was looked for.
            let _ = self.text.put_all(text[..kept].iter().copied().chain([0]));
        }
        // A driver counts the NUL: of a log of 1000 bytes that is full it says 1000 (H200, driver 580). Programs take nothing for none.
        self.length.put_if_wanted(if kept == 0 { 0 } else { kept + 1 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_proto::error::CudaError;

    /// Reads options from an array of them and of their values.
    fn read(options: &[u32], values: &mut [usize]) -> JitOptions {
        JitOptions::read(options.len() as u32, In::to(options), Out::to(values)).unwrap()
    }

    #[test]
    fn what_changes_the_code_is_chosen_and_what_is_so_anyway_is_not() {
        let chosen = |options: &[u32], values: &mut [usize]| -> Vec<_> {
            let read = read(options, values);
            read.choices().iter().map(|choice| (choice.option as u32, choice.value)).collect()
        };
        assert_eq!(chosen(&[0, 7, 9, 11], &mut [32, 0, 90, 1]), [(0, 32), (7, 0)]);
        assert_eq!(chosen(&[7, 33], &mut [4, 0]), []);
        assert_eq!(chosen(&[0, 7, 0], &mut [32, 3, 64]), [(7, 3), (0, 64)], "the last one counts");
        assert_eq!(chosen(&[], &mut []), []);
        let read = |options: &[u32]| JitOptions::read(1, In::to(options), Out::nowhere()).map(drop);
        assert_eq!(
            [read(&[8]), read(&[0])],
            [Ok(()), Err(CudaError::INVALID_VALUE)],
            "options without values"
        );
    }

    #[test]
    fn logs_are_empty_until_there_is_something_to_say_and_have_no_more_than_fits() {
        let (mut informs, mut errors) = ([7_u8; 4], [7_u8; 8]);
        let mut values =
            [informs.as_mut_ptr() as usize, 4, errors.as_mut_ptr() as usize, 0xdead_0000_0008, 7];
        let options = read(&[3, 4, 5, 6, 2], &mut values);
        assert_eq!((informs[0], errors[0], values[1], values[3], values[4] as u32), (0, 0, 0, 0, 0));
        options.tell_errors(b"line 7: no");
        assert_eq!((&errors, values[3], values[1]), (b"line 7:\0", 8, 0));
        options.tell_errors(b"no");
        assert_eq!((&errors[..4], values[3]), (&b"no\0e"[..], 3));
    }

    #[test]
    fn a_log_without_room_or_without_its_length_is_left_alone() {
        let mut errors = [7_u8; 4];
        let mut values = [errors.as_mut_ptr() as usize, 0];
        read(&[5, 6], &mut values).tell_errors(b"no");
        read(&[5], &mut values).tell_errors(b"no");
        assert_eq!((errors, values[1]), ([7; 4], 0));
        let mut length = [4];
        read(&[6], &mut length).tell_errors(b"none to write to");
    }
}
