//! The page that lists every exported name and what becomes of it: `docs/coverage.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::refused_families;
use super::surface::{Disposition, ENTRIES, Entry};
use crate::nvml;

impl Disposition {
    fn kind(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Posted(_) => "posted",
            Self::Awaited(_) => "awaited",
            Self::Refused => "refused",
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::Local => "local".to_owned(),
            Self::Posted(command) => format!("posted `{command}`"),
            Self::Awaited(command) => format!("awaited `{command}`"),
            Self::Refused => "refused".to_owned(),
        }
    }
}

/// The page, as Markdown.
pub fn coverage_page() -> String {
    let mut names: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in &ENTRIES {
        names.entry(entry.name).or_default().push(entry);
        *counts.entry(entry.disposition.kind()).or_default() += 1;
    }
    let mut page = format!(
        "# CUDA driver functions\n\n\
         The preloaded library exports {} symbols for {} functions. What becomes of a call:\n\n\
         | kind | symbols | meaning |\n|---|---|---|\n",
        ENTRIES.len(),
        names.len()
    );
    for (kind, meaning) in [
        ("local", "answered in the process"),
        ("posted", "appended to the command stream, not waited for"),
        ("awaited", "appended to the command stream, then waits for the answer"),
        ("refused", "returns CUDA_ERROR_NOT_SUPPORTED and is named once in the log"),
    ] {
        row(
            &mut page,
            &[kind.to_owned(), counts.get(kind).copied().unwrap_or(0).to_string(), meaning.to_owned()],
        );
    }
    page.push_str(
        "\nA symbol's version is the CUDA version that introduced it; per-thread variants (`_ptds`, `_ptsz`) use the calling \
         thread's default stream.\n\nThis page is generated from `torpor-intercept/driver-names.tsv`: \
         `TORPOR_BLESS=1 cargo test -p torpor-intercept coverage` rewrites it.\n\n\
         | function | symbols (since) | what becomes of it |\n|---|---|---|\n",
    );
    for (name, entries) in names {
        let symbols: Vec<_> =
            entries.iter().map(|entry| format!("`{}` ({})", entry.symbol, version(entry))).collect();
        row(&mut page, &[format!("`{name}`"), symbols.join(", "), dispositions(&entries)]);
    }
    page.push_str(&crate::runtime::coverage::coverage_part());
    page.push_str(
        "\n# What is refused, and who needs it\n\nFunctions of the driver by their symbols, then those of the runtime.\n\n\
         | what | who needs it | functions |\n|---|---|---|\n",
    );
    page.push_str(&refused_families::rows(refused_names().into_iter()));
    page.push_str(
        "\n# NVML functions\n\nAnswered in the process, for programs that ask NVML about their device, also before CUDA is \
         initialised and in children of a fork:\n\n",
    );
    let listed = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    // Writing to a string cannot fail.
    _ = write!(page, "{}, `nvmlErrorString`\n\n", listed(&nvml::names()));
    _ = writeln!(
        page,
        "Load, temperature, power, clocks and the link of the bus are what the node's NVML says of the GPU, which others may use \
         too. These say `NVML_ERROR_NOT_SUPPORTED`:\n\n{}",
        listed(&nvml::unsupported_names())
    );
    _ = writeln!(
        page,
        "\n# Functions of the C library\n\nThese start a program with an environment of the caller's choice, and pass on what the program \
         needs to reach the GPU ([configuration.md](configuration.md#programs-that-are-started-with-another-environment)):\n\n{}",
        listed(&crate::children::NAMES)
    );
    page
}

/// Every symbol of the driver that is refused, then every name of the runtime.
pub(super) fn refused_names() -> Vec<&'static str> {
    let driver = ENTRIES.iter().filter(|entry| entry.disposition == Disposition::Refused);
    driver.map(|entry| entry.symbol).chain(crate::runtime::coverage::refused_names()).collect()
}

fn row(page: &mut String, cells: &[String]) {
    // Writing to a string cannot fail.
    _ = writeln!(page, "| {} |", cells.join(" | "));
}

/// `13.0` for 13000.
fn version(entry: &Entry) -> String {
    format!("{}.{}", entry.since / 1000, entry.since % 1000 / 10)
}

/// What becomes of a function's variants: once if it is the same for all, else by symbol.
fn dispositions(entries: &[&Entry]) -> String {
    let texts: Vec<String> = entries
        .iter()
        .map(|entry| match entry.note {
            "" => entry.disposition.text(),
            note => format!("{} ({note})", entry.disposition.text()),
        })
        .collect();
    if texts.iter().all(|text| *text == texts[0]) {
        return texts[0].clone();
    }
    let by_symbol: Vec<_> =
        entries.iter().zip(texts).map(|(entry, text)| format!("`{}`: {text}", entry.symbol)).collect();
    by_symbol.join("; ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use torpor_proto::command::{self, Kind};

    use super::*;

    #[test]
    fn the_page_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/coverage.md");
        let page = coverage_page();
        if std::env::var_os("TORPOR_BLESS").is_some_and(|value| value == "1") {
            std::fs::write(&path, &page).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == page,
            "docs/coverage.md is out of date: TORPOR_BLESS=1 cargo test -p torpor-intercept coverage rewrites it"
        );
    }

    #[test]
    fn every_command_in_the_table_exists_and_is_of_that_kind() {
        let kind_of =
            |name: &str| command::ALL.iter().find(|(_, known, _)| *known == name).map(|(_, _, kind)| *kind);
        for entry in &ENTRIES {
            let (name, kind) = match entry.disposition {
                Disposition::Posted(name) => (name, Kind::Posted),
                Disposition::Awaited(name) => (name, Kind::Awaited),
                Disposition::Local | Disposition::Refused => continue,
            };
            assert_eq!(kind_of(name), Some(kind), "{} says {name} in driver-names.tsv", entry.symbol);
        }
    }

    #[test]
    fn variants_are_told_apart_only_if_they_differ() {
        let page = coverage_page();
        assert!(page.contains("| `cuMemAlloc` | `cuMemAlloc` (2.0), `cuMemAlloc_v2` (3.2) |"));
        assert_eq!(page.lines().filter(|line| line.starts_with("| `cuMemcpyHtoD` |")).count(), 1);
    }
}
