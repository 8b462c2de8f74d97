//! How the worker is built: its folders are a stack, a session is changed by the session alone, and files stay short.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The worker's folders and files, the top first. Each may import what stands below it, and itself.
const LAYERS: [&str; 17] = [
    "mod",
    "commands",
    "session",
    "streams",
    "objects",
    "memory",
    "usage",
    "ending",
    "warden",
    "gpu",
    "mailbox",
    "cost",
    "work_time",
    "server_socket",
    "relinquish",
    "words",
    "sync",
];

/// Lines of a file.
const MOST_LINES: usize = 350;

/// The worker's files by their paths in it, without comments.
fn files() -> BTreeMap<String, String> {
    fn gather(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                gather(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let worker = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/worker");
    let mut found = Vec::new();
    gather(&worker, &mut found);
    assert!(found.len() > 40, "the worker is not in {}", worker.display());
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let name = path.strip_prefix(&worker).unwrap().to_str().unwrap().to_owned();
        (name, code.collect::<Vec<_>>().join("\n"))
    };
    found.into_iter().map(read).collect()
}

/// The first part of a path, and where that stands in the stack.
fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|&layer| layer == name)
}

/// What a file names of the worker: the part after `crate::worker::`, of each member of a group.
fn imports(code: &str) -> Vec<String> {
    let identifier = |text: &str| -> String {
        text.trim_start().chars().take_while(|&c| c.is_alphanumeric() || c == '_').collect()
    };
    let mut named = Vec::new();
    for (at, _) in code.match_indices("crate::worker::") {
        let rest = &code[at + "crate::worker::".len()..];
        match rest.strip_prefix('{') {
            None => named.push(identifier(rest)),
            Some(group) => {
                let group = group.split('}').next().unwrap_or_default();
                named.extend(group.split(',').map(identifier).filter(|name| !name.is_empty()));
            }
        }
    }
    named
}

#[test]
fn the_worker_imports_downwards_alone() {
    let mut wrong = Vec::new();
    for (file, code) in files() {
        let own = file.split('/').next().unwrap().trim_end_matches(".rs");
        let Some(own_layer) = layer(own) else {
            wrong.push(format!("{file}: {own} is in no layer; give it its place in LAYERS of {}", file!()));
            continue;
        };
        if code.contains("super::super::") {
            wrong.push(format!("{file}: names a neighbour by super::super::; write crate::worker:: instead"));
        }
        for import in imports(&code) {
            match layer(&import) {
                Some(layer) if layer >= own_layer => {}
                Some(_) => wrong.push(format!(
                    "{file} imports crate::worker::{import}, which stands above {own}: move what both need below them, or \
                     hand over what is needed as an argument"
                )),
                None => wrong.push(format!("{file} imports crate::worker::{import}, which is in no layer")),
            }
        }
    }
    assert!(wrong.is_empty(), "the worker's stack is {LAYERS:?}\n{}", wrong.join("\n"));
}

#[test]
fn a_session_s_methods_are_in_its_folder() {
    let elsewhere: Vec<String> = files()
        .into_iter()
        .filter(|(file, code)| {
            !file.starts_with("session/") && code.lines().any(|line| line == "impl Session {")
        })
        .map(|(file, _)| file)
        .collect();
    assert!(
        elsewhere.is_empty(),
        "{elsewhere:?} have methods of Session: a command's own steps are functions that take the session; what others \
         need, too, is a method in session/"
    );
}

#[test]
fn files_have_one_idea_each() {
    let long: Vec<String> = files()
        .into_iter()
        .filter(|(_, code)| code.lines().count() > MOST_LINES)
        .map(|(file, _)| file)
        .collect();
    assert!(
        long.is_empty(),
        "{long:?}: a file of more than {MOST_LINES} lines has more than one idea: split it by these"
    );
}
