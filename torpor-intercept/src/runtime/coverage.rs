//! The part of `docs/coverage.md` that lists the runtime's functions.

use super::surface::{Answer, ENTRIES, Entry};
use crate::driver::surface::Disposition;
use std::fmt::Write as _;

/// The part, as Markdown.
pub(crate) fn coverage_part() -> String {
    let answered: Vec<&Entry> = ENTRIES.iter().filter(|entry| !is_refused(entry)).collect();
    let mut page = format!(
        "\n# CUDA runtime functions\n\n\
         The same library exports the {} names that libcudart.so.12 and libcudart.so.13 have together and answers {} of \
         them; the rest return cudaErrorNotSupported and are named once in the log. Programs for another version of CUDA, \
         and all with `TORPOR_RUNTIME_SURFACE=off`, keep their own libcudart, which then calls the driver functions above.\n\n\
         This part is generated from `torpor-intercept/runtime-names.tsv`.\n\n\
         | function | what becomes of it |\n|---|---|\n",
        ENTRIES.len(),
        answered.len(),
    );
    for entry in answered {
        let what = if entry.is_only_cuda_12 {
            format!("only in CUDA 12: {}", text(&entry.cuda_12))
        } else if text(&entry.cuda_12) == text(&entry.cuda_13) {
            text(&entry.cuda_13)
        } else {
            format!("{}; in CUDA 12: {}", text(&entry.cuda_13), text(&entry.cuda_12))
        };
        // Writing to a string cannot fail.
        _ = writeln!(page, "| `{}` | {what} |", entry.name());
    }
    page
}

fn is_refused(entry: &Entry) -> bool {
    [&entry.cuda_12, &entry.cuda_13].iter().all(|answer| answer.disposition == Disposition::Refused)
}

/// Every name that is refused, to programs for any version.
pub(crate) fn refused_names() -> impl Iterator<Item = &'static str> {
    ENTRIES.iter().filter(|entry| is_refused(entry)).map(Entry::name)
}

fn text(answer: &Answer) -> String {
    let text = answer.disposition.text();
    if answer.note.is_empty() { text } else { format!("{text} ({})", answer.note) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_proto::command::{self, Kind};

    #[test]
    fn every_command_in_the_table_exists_and_is_of_that_kind() {
        let answers = ENTRIES.iter().flat_map(|entry| [(entry, &entry.cuda_12), (entry, &entry.cuda_13)]);
        for (entry, answer) in answers {
            let (name, kind) = match answer.disposition {
                Disposition::Posted(name) => (name, Kind::Posted),
                Disposition::Awaited(name) => (name, Kind::Awaited),
                Disposition::Local | Disposition::Refused => continue,
            };
            let known = command::ALL.iter().find(|(_, known, _)| *known == name).map(|(_, _, kind)| *kind);
            assert_eq!(known, Some(kind), "{} says {name} in runtime-names.tsv", entry.name());
        }
    }
}
